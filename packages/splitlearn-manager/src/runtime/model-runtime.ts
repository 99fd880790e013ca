import { AsyncModelComputeFunction, type ComputeFunction, WorkerExecutor } from '@splitlearn/comm';
import type { EngineOptions } from '../engines/engine.js';
import { ManagerError } from '../errors.js';
import type { ResolvedBatching } from './batching-config.js';
import { ScheduledModel } from './scheduled-model.js';

/** What computes a model. */
export type EngineName = 'onnx' | 'transformers' | 'module';

/** What a model's thread is given. */
export interface ThreadOptions extends EngineOptions {
  readonly engine: EngineName;
}

export interface RuntimeOptions extends ThreadOptions {
  /** How many requests may wait for the one that runs. */
  readonly maxQueue: number;
  /** How requests are put together into one run. Default: each runs alone. */
  readonly batching?: ResolvedBatching;
}

/**
 * A model ready to be served: a scheduler in front of a thread of the model's own, because inference must not run on an
 * event loop that serves (`onnxruntime-node` computes synchronously,
 * https://github.com/microsoft/onnxruntime/issues/19611).
 *
 * @throws ManagerError `INVALID_CONFIG` for batching with an engine that cannot do it; so does its `setup`, for a model
 * without a batch dimension.
 */
export function createModelRuntime({ maxQueue, batching, ...data }: RuntimeOptions): ComputeFunction {
  if (batching && data.engine === 'transformers') {
    throw new ManagerError(
      'INVALID_CONFIG',
      `model '${data.modelId}' cannot have batching, because the answers of the engine 'transformers' to a text depend on ` +
        'those that it comes with (it pads them to one length); send several texts in one request, or use the engine onnx',
    );
  }
  // ONNX Runtime's builds since 1.29 tell Microsoft which models run here, unless this is set before they are loaded; what
  // a thread sets in its own process.env they do not see (https://github.com/microsoft/onnxruntime/pull/27379).
  process.env.ORT_DISABLE_TELEMETRY ??= '1';
  const model = new AsyncModelComputeFunction({
    model: new URL('./engine-thread.js', import.meta.url),
    // The scheduler lets one call through at a time.
    executor: new WorkerExecutor({ threads: 1, maxQueue: 1, data }),
  });
  return new ScheduledModel({ modelId: data.modelId, model, maxQueue, batching });
}
