import { isDeepStrictEqual } from 'node:util';
import type { CallContext, Logger, ModelInfo } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { HostOptions, ModelHost } from '../hosts/model-host.js';
import { startProcessHost } from '../hosts/process-host.js';
import { startThreadHost } from '../hosts/thread-host.js';
import { MetricsCollector } from '../monitoring/metrics-collector.js';
import { ResourceManager } from '../resources/resource-manager.js';
import { type LocatedModel, locateModel } from '../sources/local.js';
import type { ModelLease } from './lease.js';
import { ManagedModel } from './managed-model.js';
import { type ModelConfig, parseModelConfig, type ResolvedModelConfig } from './model-config.js';
import type { ModelState } from './model-state.js';

export interface AsyncModelManagerOptions {
  readonly resourceManager?: ResourceManager;
  readonly metrics?: MetricsCollector;
  /** How many models may be loaded at once. Default 16. */
  readonly maxModels?: number;
  /** The largest request or response, in bytes. Default 64 MiB. */
  readonly maxMessageLength?: number;
  /** Told when a model's process ends by itself, and what such a process writes to its output. Default: `console`. */
  readonly logger?: Logger;
}

/** What is known of a loaded model. */
export interface ManagedModelInfo extends ModelInfo {
  readonly modelId: string;
  readonly state: ModelState;
  readonly source: string;
  readonly engine: 'onnx' | 'transformers' | 'module';
  readonly isolation: 'process' | 'thread';
  /** The threads that one run computes with. */
  readonly threads: number;
  /** Memory that the model took when it was loaded, in bytes. */
  readonly memoryBytes: number;
  /** How long the last load took, in milliseconds. */
  readonly loadMs: number;
  /** The process that it runs in; absent while it runs in none. */
  readonly pid?: number;
  /** Requests and sessions that use it now. */
  readonly leases: number;
}

export interface UnloadOptions {
  /** Milliseconds that requests which use the model may still take. Default 30000; 0 cuts them off. */
  readonly graceMs?: number;
}

export interface UnloadReport {
  readonly modelId: string;
  /** Memory that the model had, in bytes. All of it is given back when it ran in a process of its own. */
  readonly reclaimedBytes: number;
  /** Requests that were cut off because they took longer than `graceMs`. */
  readonly interrupted: number;
  /** How long the unloading took, in milliseconds. */
  readonly durationMs: number;
}

interface Entry {
  /** How many times `loadModel` was called before; the files of a model given later may be found sooner. */
  readonly order: number;
  readonly config: ResolvedModelConfig;
  readonly located: LocatedModel;
  readonly model: ManagedModel;
  threads: number;
  memoryBytes: number;
  loadMs: number;
}

/** A guess at what a process with a model in it takes beside the model's own files: Node and the runtime, in bytes. */
const PROCESS_BYTES = 100 * 2 ** 20;

/** Loads models, lends them out, and unloads them. */
export class AsyncModelManager {
  readonly resourceManager: ResourceManager;
  readonly metrics: MetricsCollector;
  readonly #maxModels: number;
  readonly #maxMessageLength: number;
  readonly #logger: Logger;
  readonly #entries = new Map<string, Entry>();
  #loadCalls = 0;
  #shutDown = false;

  constructor(options: AsyncModelManagerOptions = {}) {
    this.resourceManager = options.resourceManager ?? new ResourceManager();
    this.metrics = options.metrics ?? new MetricsCollector();
    this.#maxModels = options.maxModels ?? 16;
    this.#maxMessageLength = options.maxMessageLength ?? 64 * 1024 * 1024;
    this.#logger = options.logger ?? console;
  }

  /**
   * Loads a model and waits until it can be used. Loading one that is loaded, with the same configuration, does
   * nothing more than wait for it; concurrent loads of one model are one load.
   *
   * @throws ManagerError `INVALID_CONFIG`, `SOURCE_NOT_FOUND`, `SOURCE_INVALID`, `MODEL_LOAD_FAILED`,
   * `INSUFFICIENT_MEMORY`, `TOO_MANY_MODELS`, `MODEL_ALREADY_LOADED` where the configuration differs, `SHUT_DOWN`.
   * A model that could not be loaded leaves nothing behind.
   */
  async loadModel(modelConfig: string | ModelConfig): Promise<ManagedModelInfo> {
    const config = parseModelConfig(modelConfig);
    const order = this.#loadCalls++;
    const located = await locateModel(config);
    const { modelId } = located;
    const present = this.#entries.get(modelId);
    if (present && !isDeepStrictEqual(present.config, config)) throw alreadyLoaded(modelId);
    const entry = present ?? this.#admit(order, config, located);
    try {
      await entry.model.load();
    } catch (error) {
      if (!present) this.#forget(entry);
      throw error;
    }
    return this.#describe(entry);
  }

  /** What is known of a model; `undefined` where none of that id is loaded. */
  getModel(modelId: string): ManagedModelInfo | undefined {
    const entry = this.#entries.get(modelId);
    return entry && this.#describe(entry);
  }

  /**
   * Lends a model out until the lease is released. A model that is being loaded is waited for; one whose process has
   * ended is started again.
   *
   * @throws ManagerError `MODEL_NOT_FOUND`, `MODEL_DRAINING`, `MODEL_LOAD_FAILED`; the signal's reason when the
   * caller's time runs out first.
   */
  async acquire(modelId: string, context?: Pick<CallContext, 'signal'>): Promise<ModelLease> {
    return this.#find(modelId).model.acquire(context?.signal);
  }

  /**
   * Refuses new requests for a model, waits for those that use it, and ends it.
   *
   * @throws ManagerError `MODEL_NOT_FOUND`.
   */
  async unloadModel(modelId: string, { graceMs = 30_000 }: UnloadOptions = {}): Promise<UnloadReport> {
    const entry = this.#find(modelId);
    const { model } = entry;
    if (model.state === 'DRAINING')
      throw new ManagerError('MODEL_DRAINING', `model '${modelId}' is being unloaded already`);
    const startedMs = performance.now();
    try {
      const outcome = await model.unload(graceMs);
      return { modelId, ...outcome, durationMs: performance.now() - startedMs };
    } finally {
      this.#forget(entry);
      this.metrics.recordModelUnload(modelId);
    }
  }

  /** All models that are loaded, in the order in which they were given. */
  listModels(): ManagedModelInfo[] {
    const entries = [...this.#entries.values()].sort((one, other) => one.order - other.order);
    return entries.map((entry) => this.#describe(entry));
  }

  /** @throws ManagerError `MODEL_NOT_FOUND`. */
  getModelInfo(modelId: string): ManagedModelInfo {
    return this.#describe(this.#find(modelId));
  }

  getStatistics() {
    return {
      models: this.listModels(),
      resources: this.resourceManager.getCurrentUsage(),
      ...this.metrics.getStatistics(),
    };
  }

  /** Unloads all models and refuses to load any more. Models that are being unloaded already are waited for as well. */
  async shutdown({ graceMs = 30_000 }: UnloadOptions = {}): Promise<void> {
    this.#shutDown = true;
    await Promise.all(
      [...this.#entries.values()].map(({ model }) =>
        model.state === 'DRAINING' ? model.unload(graceMs) : this.unloadModel(model.modelId, { graceMs }),
      ),
    );
  }

  #admit(order: number, config: ResolvedModelConfig, located: LocatedModel): Entry {
    const { modelId } = located;
    if (this.#shutDown)
      throw new ManagerError('SHUT_DOWN', `model '${modelId}' cannot be loaded: the server is shutting down`);
    if (this.#entries.size >= this.#maxModels) throw this.#tooMany(modelId);
    const { threads, memoryBytes } = this.resourceManager.reserve(
      modelId,
      estimateBytes(config, located),
      config.threads,
    );
    const onCrash = (error: ManagerError) => this.#logger.warn(error.message);
    const model = new ManagedModel(modelId, (signal) => this.#startHost(entry, signal), onCrash);
    const entry: Entry = { order, config, located, model, threads, memoryBytes, loadMs: 0 };
    this.#entries.set(modelId, entry);
    return entry;
  }

  async #startHost(entry: Entry, signal: AbortSignal): Promise<ModelHost> {
    const { config, located, threads } = entry;
    const { modelId, engine, folder, file } = located;
    const { maxQueue, isolation } = config;
    const options: HostOptions = {
      modelId,
      engine,
      folder,
      file,
      threads,
      maxQueue,
      maxMessageLength: this.#maxMessageLength,
    };
    const startedMs = performance.now();
    try {
      const starting =
        isolation === 'process' ? startProcessHost(options, this.#logger, signal) : startThreadHost(options);
      const host = await starting;
      entry.loadMs = performance.now() - startedMs;
      entry.memoryBytes = await host.memoryBytes();
      this.resourceManager.recordUse(modelId, entry.memoryBytes);
      this.metrics.recordModelLoad(modelId, entry.loadMs / 1000, true);
      return host;
    } catch (error) {
      this.metrics.recordModelLoad(modelId, (performance.now() - startedMs) / 1000, false);
      throw loadFailure(modelId, error);
    }
  }

  #forget(entry: Entry): void {
    const { modelId } = entry.located;
    if (this.#entries.get(modelId) !== entry) return; // forgotten already, and perhaps loaded anew
    this.#entries.delete(modelId);
    this.resourceManager.releaseModel(modelId);
  }

  #find(modelId: string): Entry {
    const entry = this.#entries.get(modelId);
    if (entry) return entry;
    const loaded = this.listModels()
      .map(({ name }) => `'${name}'`)
      .join(', ');
    throw new ManagerError('MODEL_NOT_FOUND', `there is no model '${modelId}' here; loaded: ${loaded || 'none'}`);
  }

  #describe({ config, located, model, threads, memoryBytes, loadMs }: Entry): ManagedModelInfo {
    const { modelId, engine } = located;
    const { source, isolation } = config;
    return {
      ...model.info,
      name: modelId,
      modelId,
      state: model.state,
      ...{ source, engine, isolation, threads, memoryBytes, loadMs },
      ...(model.host && { pid: model.host.pid }),
      leases: model.leases,
      attributes: {
        engine,
        isolation,
        threads: String(threads),
        memoryBytes: String(memoryBytes),
        ...model.info.attributes,
      },
    };
  }

  #tooMany(modelId: string): ManagerError {
    return new ManagerError(
      'TOO_MANY_MODELS',
      `model '${modelId}' cannot be loaded: ${this.#entries.size} models are, as many as maxModels allows; unload one, or raise it`,
    );
  }
}

/** A model's weights are read into memory once, and most runtimes keep about as much again for what they compute. */
function estimateBytes({ isolation }: ResolvedModelConfig, { fileBytes }: LocatedModel): number {
  return 2 * fileBytes + (isolation === 'process' ? PROCESS_BYTES : 0);
}

function alreadyLoaded(modelId: string): ManagerError {
  return new ManagerError(
    'MODEL_ALREADY_LOADED',
    `a model '${modelId}' is loaded with another configuration; unload it first, or give this one another modelId`,
  );
}

function loadFailure(modelId: string, error: unknown): unknown {
  const known = ManagerError.fromCommError(error);
  if (known instanceof ManagerError) return known;
  const message = error instanceof Error ? error.message : String(error);
  return new ManagerError('MODEL_LOAD_FAILED', `model '${modelId}' could not be loaded: ${message}`, { cause: error });
}
