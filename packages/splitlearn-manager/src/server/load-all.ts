import type { Logger } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { AsyncModelManager } from '../models/async-model-manager.js';
import type { ModelConfig } from '../models/model-config.js';

/**
 * Loads all models side by side, as far as they fit: the first request for one that is left loads it, in the place of
 * others. When one cannot be loaded for any other reason, those that were are unloaded again.
 */
export async function loadAll(
  modelManager: AsyncModelManager,
  models: readonly (string | ModelConfig)[],
  logger: Logger,
): Promise<void> {
  const results = await Promise.allSettled(models.map((model) => loadOrLeave(modelManager, model, logger)));
  const failed = results.find((result) => result.status === 'rejected');
  if (!failed) return;
  await modelManager.shutdown({ graceMs: 0 });
  throw failed.reason;
}

async function loadOrLeave(
  modelManager: AsyncModelManager,
  model: string | ModelConfig,
  logger: Logger,
): Promise<void> {
  const { modelId } = await modelManager.registerModel(model);
  try {
    await modelManager.loadModel(model, { evict: false });
  } catch (error) {
    const full = error instanceof ManagerError && ['INSUFFICIENT_MEMORY', 'TOO_MANY_MODELS'].includes(error.code);
    // Where it would not fit even alone, it is better to know that now.
    if (!full || !(await modelManager.plan(model)).fits) throw error;
    logger.warn(`model '${modelId}' is loaded when it is asked for: ${error.message}`);
  }
}
