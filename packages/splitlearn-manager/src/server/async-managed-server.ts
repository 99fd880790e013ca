import { AsyncGRPCComputeServer, type CallStatistics, type Logger, type StopOptions } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import { AsyncModelManager, type UnloadOptions, type UnloadReport } from '../models/async-model-manager.js';
import type { ModelConfig } from '../models/model-config.js';
import type { ManagedModelInfo } from '../models/model-info.js';
import { MetricsCollector, type ModelStatistics } from '../monitoring/metrics-collector.js';
import { ResourceManager, type ResourceUsage } from '../resources/resource-manager.js';
import { ModelRouter } from '../routing/model-router.js';
import { AsyncManagedComputeFunction } from './async-managed-compute-function.js';
import { parseServerConfig, type ServerConfig } from './server-config.js';

export interface AsyncManagedServerOptions {
  readonly config?: ServerConfig;
  /** The models to load before the server listens. */
  readonly models?: readonly (string | ModelConfig)[];
  /** Told of crashes and unexpected errors. Default: `console`. */
  readonly logger?: Logger;
}

export interface ServerStatus {
  /** The port that the server listens on; absent while it does not. */
  readonly port?: number;
  readonly models: readonly ManagedModelInfo[];
  readonly resources: ResourceUsage;
  /** All calls. */
  readonly calls: CallStatistics;
  /** Requests by model. */
  readonly requestsByModel: Readonly<Record<string, ModelStatistics>>;
}

/** A gRPC server with managed models behind it: the parts of the package, put together. */
export class AsyncManagedServer {
  readonly resourceManager: ResourceManager;
  readonly metrics = new MetricsCollector();
  readonly modelManager: AsyncModelManager;
  readonly #server: AsyncGRPCComputeServer;
  #port: number | undefined;

  /** @throws ManagerError `INVALID_CONFIG`. */
  constructor({ config = {}, models = [], logger = console }: AsyncManagedServerOptions = {}) {
    const { host, port, maxMessageLength, maxModels, maxMemoryPercent, memoryLimitBytes, ...rest } =
      parseServerConfig(config);
    const memory = { maxMemoryPercent, ...(memoryLimitBytes !== undefined && { memoryLimitBytes }) };
    this.resourceManager = new ResourceManager({ ...memory, plannedModels: models.length });
    const { resourceManager, metrics } = this;
    const { lockfile: path, frozen } = rest;
    this.modelManager = new AsyncModelManager({
      ...{ resourceManager, metrics, maxModels, maxMessageLength, logger },
      ...(path !== undefined && { lockfile: { path, frozen } }),
    });
    const { modelManager } = this;
    const router = new ModelRouter({ modelManager });
    const managed = new AsyncManagedComputeFunction({ router, modelManager, metrics });
    const computeFn = {
      setup: async () => {
        await loadAll(modelManager, models, logger);
      },
      compute: managed.compute.bind(managed),
      stream: managed.stream.bind(managed),
      info: managed.info.bind(managed),
      teardown: () => modelManager.shutdown({ graceMs: 0 }), // the server has waited for all calls already
    };
    this.#server = new AsyncGRPCComputeServer({ computeFn, host, port, maxMessageLength, logger });
  }

  /**
   * Loads the models, then listens.
   *
   * @returns the bound port.
   * @throws ManagerError what `loadModel` throws for a model that cannot be loaded; CommError `FAILED_PRECONDITION`
   * (reason `ADDRESS_IN_USE`) when the port is taken. Nothing stays loaded then.
   */
  async start(): Promise<number> {
    this.#port = await this.#server.start();
    return this.#port;
  }

  /** Refuses new calls, lets those under way finish for `graceMs`, and unloads all models. Gives up a start. */
  async stop(options?: StopOptions): Promise<void> {
    if (this.#port === undefined) await this.modelManager.shutdown({ graceMs: 0 });
    await this.#server.stop(options);
    this.#port = undefined;
  }

  waitForTermination(): Promise<void> {
    return this.#server.waitForTermination();
  }

  /** Loads a model beside those that are served. @see AsyncModelManager.loadModel */
  loadModel(config: string | ModelConfig): Promise<ManagedModelInfo> {
    return this.modelManager.loadModel(config);
  }

  /** Unloads a model and says what it gave back. @see AsyncModelManager.unloadModel */
  unloadModel(modelId: string, options?: UnloadOptions): Promise<UnloadReport> {
    return this.modelManager.unloadModel(modelId, options);
  }

  getStatus(): ServerStatus {
    return {
      ...(this.#port !== undefined && { port: this.#port }),
      models: this.modelManager.listModels(),
      resources: this.resourceManager.getCurrentUsage(),
      calls: this.#server.getStatistics(),
      ...this.metrics.getStatistics(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

/**
 * Loads all models side by side, as far as they fit: the first request for one that is left loads it, in the place of
 * others. When one cannot be loaded for any other reason, those that were are unloaded again.
 */
async function loadAll(
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
