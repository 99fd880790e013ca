import { EventEmitter } from 'node:events';
import type { CallContext, Logger } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { StartHostAt } from '../hosts/start-host.js';
import { MetricsCollector } from '../monitoring/metrics-collector.js';
import { MemoryPressure } from '../resources/memory-pressure.js';
import { ResourceManager } from '../resources/resource-manager.js';
import type { LocatedModel } from '../sources/local.js';
import { locateModel } from '../sources/locate.js';
import type { LockfileOptions } from '../sources/lockfile.js';
import type { AdmissionPlan, EvictionRecord } from './admission.js';
import type { EvictionPolicy } from './eviction.js';
import { KnownModels } from './known-models.js';
import type { ModelLease } from './lease.js';
import { LifeCycle } from './life-cycle.js';
import type { ManagerEvents } from './manager-events.js';
import { type Every, MemoryKeeper } from './memory-keeper.js';
import { type ModelConfig, parseModelConfig, type ResolvedModelConfig } from './model-config.js';
import { describeModel, type ManagedModelInfo } from './model-info.js';
import type { estimateNeed } from './model-need.js';
import { type ModelLoad, RegisteredModel } from './registered-model.js';

export interface AsyncModelManagerOptions {
  readonly resourceManager?: ResourceManager;
  readonly metrics?: MetricsCollector;
  /** How many models may be loaded at once; to load a further one, an idle one is evicted. Default 16. */
  readonly maxModels?: number;
  /**
   * Holds models to the files that they had when they were first used: their commit and the sha256 of each file, in a file
   * that is to be kept with the program. `frozen` refuses whatever differs or is not in it. Default: none.
   */
  readonly lockfile?: LockfileOptions;
  /** In which order models make room for others. Default: {@link leastRecentlyUsed}. */
  readonly evictionPolicy?: EvictionPolicy;
  /** The largest request or response, in bytes. Default 64 MiB. */
  readonly maxMessageLength?: number;
  /** Told when a model's process ends by itself, and what such a process writes to its output. Default: `console`. */
  readonly logger?: Logger;
}

export interface LoadOptions {
  /** Whether idle models may be evicted to make room. Default true. */
  readonly evict?: boolean;
}

export interface UnloadOptions {
  /** Milliseconds that requests which use the model may still take. Default 30000; 0 cuts them off. */
  readonly graceMs?: number;
}

export interface ReloadOptions extends UnloadOptions {
  /** What the model is to be from now on, under the id that it has. Default: what it is. */
  readonly config?: string | ModelConfig;
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

/** What tests put something else in the place of. */
interface Seams {
  readonly startHost: StartHostAt;
  readonly locateModel: typeof locateModel;
  readonly estimateNeed: typeof estimateNeed;
  readonly every: Every;
}

/** How many evictions are remembered. */
const MAX_EVICTION_RECORDS = 1_000;

/** Loads models, lends them out, evicts them where others need the room, and unloads them. */
export class AsyncModelManager extends EventEmitter<ManagerEvents> {
  readonly resourceManager: ResourceManager;
  readonly metrics: MetricsCollector;
  readonly #locateModel: typeof locateModel;
  readonly #logger: Logger;
  readonly #lifeCycle: LifeCycle;
  readonly #memoryKeeper: MemoryKeeper;
  readonly #models = new KnownModels();
  readonly #evictions: EvictionRecord[] = [];
  readonly #lockfile: LockfileOptions | undefined;
  readonly #closing = new AbortController();
  #given = 0;
  #shutDown = false;

  constructor(options: AsyncModelManagerOptions = {}, /** @internal */ seams: Partial<Seams> = {}) {
    super();
    this.#locateModel = seams.locateModel ?? locateModel;
    const { maxModels = 16, evictionPolicy, maxMessageLength = 64 * 1024 * 1024, logger = console } = options;
    this.resourceManager = options.resourceManager ?? new ResourceManager();
    this.metrics = options.metrics ?? new MetricsCollector();
    this.#logger = logger;
    this.#lockfile = options.lockfile;
    const models = () => this.#models.all();
    const { resourceManager, metrics } = this;
    this.#lifeCycle = new LifeCycle({
      ...{ resourceManager, metrics, maxModels, policy: evictionPolicy, maxMessageLength, logger, models },
      ...seams,
      onState: (modelId, state, error) => {
        if (state === 'READY') this.#memoryKeeper.start();
        this.#tell('state', { modelId, state, ...(error && { error }) });
      },
      onEviction: (record) => this.#recordEviction(record),
    });
    this.#memoryKeeper = new MemoryKeeper({
      ...{ resourceManager, models, logger },
      pressure: new MemoryPressure(),
      measure: async ({ life }) => life && this.#lifeCycle.measure(life),
      evict: (model) => this.#lifeCycle.evict(model, 'pressure'),
      every: seams.every ?? everyInterval,
    });
  }

  /**
   * Makes a model known without loading it: the first request for it does. Its files are found, or downloaded, now.
   *
   * @throws ManagerError `INVALID_CONFIG`, `MODEL_ALREADY_LOADED` where a model of that id has another configuration,
   * `SHUT_DOWN`, and what finding its files may throw: the codes that begin with `SOURCE_`, `INSUFFICIENT_DISK`,
   * `LOCKFILE_MISMATCH`.
   */
  async registerModel(modelConfig: string | ModelConfig): Promise<ManagedModelInfo> {
    return describeModel((await this.#register(modelConfig)).model);
  }

  /**
   * Loads a model and waits until it can be used. Loading one that is loaded, with the same configuration, does
   * nothing more than wait for it; concurrent loads of one model are one load. Where there is no room, idle models are
   * evicted, and busy ones once their requests have ended; pinned ones never.
   *
   * @throws ManagerError what {@link registerModel} throws; `MODEL_LOAD_FAILED`, `MODEL_MEMORY_EXCEEDED`,
   * `DEVICE_UNAVAILABLE`, `INSUFFICIENT_MEMORY`, `TOO_MANY_MODELS`. A model that was not known before and could not be loaded leaves nothing behind.
   */
  async loadModel(modelConfig: string | ModelConfig, { evict = true }: LoadOptions = {}): Promise<ManagedModelInfo> {
    const { model, isNew } = await this.#register(modelConfig);
    try {
      await model.load(evict);
    } catch (error) {
      if (isNew) this.#models.forget(model);
      throw error;
    }
    return describeModel(model);
  }

  /** What is known of a model; `undefined` where there is none of that id. */
  getModel(modelId: string): ManagedModelInfo | undefined {
    const model = this.#models.get(modelId);
    return model && describeModel(model);
  }

  /**
   * Lends a model out until the lease is released. One that is not loaded is loaded first, for which others may be
   * evicted; one whose process has ended is waited for until it is up again.
   *
   * @throws ManagerError `MODEL_NOT_FOUND`, `MODEL_DRAINING`, `MODEL_FAILED`, what {@link loadModel} throws where it has to
   * be loaded; the signal's reason when the caller's time runs out first.
   */
  async acquire(modelId: string, context?: Pick<CallContext, 'signal'>): Promise<ModelLease> {
    const model = this.#models.find(modelId);
    // Looking at a signal makes it, which costs more than all of the rest here.
    return model.lease() ?? model.acquire(context?.signal);
  }

  /** What loading a model would do now, without doing it. Its files have to be there, or are downloaded. */
  async plan(modelConfig: string | ModelConfig): Promise<AdmissionPlan> {
    const config = parseModelConfig(modelConfig);
    const located = await this.#locate(config);
    const present = this.#models.get(located.modelId);
    const { memoryBytes } = await this.#lifeCycle.estimateNeed(config, located);
    const plan = this.#lifeCycle.admission.plan(located.modelId, memoryBytes, present);
    if (!present?.life) return plan;
    return { ...plan, fits: true, reason: 'it is loaded already', shortBytes: 0, evictions: [] };
  }

  /** The last 1000 evictions, the oldest first. */
  listEvictions(): readonly EvictionRecord[] {
    return [...this.#evictions];
  }

  /**
   * Loads a model anew, from its files as they are now and, where one is given, with another configuration, and puts it in
   * the place of the one that runs, which ends when its requests have. No request fails for it. For a while there are both,
   * so there must be room for both. Concurrent reloads of one model are one reload, but for those with a configuration.
   *
   * @throws ManagerError `MODEL_NOT_FOUND`, `INVALID_CONFIG` where the configuration is wrong or another model's, and what
   * {@link loadModel} throws; the one that runs goes on then, as it was configured.
   */
  async reloadModel(modelId: string, { graceMs = 30_000, config }: ReloadOptions = {}): Promise<ManagedModelInfo> {
    const wanted = config === undefined ? undefined : parseModelConfig(config);
    if (wanted)
      while (this.#models.get(modelId)?.reloading) await this.#models.get(modelId)?.reloading?.catch(() => {});
    const model = this.#models.find(modelId);
    model.reloading ??= this.#reload(model, graceMs, wanted).finally(() => (model.reloading = undefined));
    await model.reloading;
    return describeModel(model);
  }

  /**
   * Refuses new requests for a model, waits for those that use it, ends it and forgets it.
   *
   * @throws ManagerError `MODEL_NOT_FOUND`.
   */
  async unloadModel(modelId: string, { graceMs = 30_000 }: UnloadOptions = {}): Promise<UnloadReport> {
    const model = this.#models.find(modelId);
    if (model.removal) throw new ManagerError('MODEL_DRAINING', `model '${modelId}' is being unloaded already`);
    const startedMs = performance.now();
    model.removal = new ManagerError(
      'MODEL_DRAINING',
      `model '${modelId}' is being unloaded and takes no new requests`,
    );
    let removed!: () => void;
    model.removed = new Promise<void>((resolve) => (removed = resolve));
    model.refuse(model.removal);
    try {
      const outcomes = await Promise.all(model.lives.map((life) => this.#lifeCycle.end(life, graceMs)));
      const reclaimedBytes = outcomes.reduce((sum, outcome) => sum + outcome.reclaimedBytes, 0);
      const interrupted = outcomes.reduce((sum, outcome) => sum + outcome.interrupted, 0);
      return { modelId, interrupted, reclaimedBytes, durationMs: performance.now() - startedMs };
    } finally {
      this.#models.forget(model);
      removed();
      this.metrics.recordModelUnload(modelId);
    }
  }

  /** The ids of all models that are known, in the order in which they were given. */
  modelIds(): readonly string[] {
    return this.#models.sorted().map(({ modelId }) => modelId);
  }

  /** All models that are known, in the order in which they were given. */
  listModels(): ManagedModelInfo[] {
    return this.#models.sorted().map(describeModel);
  }

  /** @throws ManagerError `MODEL_NOT_FOUND`. */
  getModelInfo(modelId: string): ManagedModelInfo {
    return describeModel(this.#models.find(modelId));
  }

  /** How busy a model is; `undefined` where there is none of that id. Costs next to nothing: routers ask for every request. */
  getModelLoad(modelId: string): ModelLoad | undefined {
    return this.#models.get(modelId);
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
    this.#memoryKeeper.stop();
    this.#closing.abort(new ManagerError('SHUT_DOWN', 'the server is shutting down'));
    await Promise.all(
      [...this.#models.all()].map(async (model) => {
        if (model.removal) await model.life?.unload(graceMs);
        else await this.unloadModel(model.modelId, { graceMs });
      }),
    );
  }

  async #register(modelConfig: string | ModelConfig): Promise<{ model: RegisteredModel; isNew: boolean }> {
    const config = parseModelConfig(modelConfig);
    const order = this.#given++;
    const located = await this.#locate(config);
    const { modelId } = located;
    if (this.#shutDown)
      throw new ManagerError('SHUT_DOWN', `model '${modelId}' cannot be loaded: the server is shutting down`);
    const present = this.#models.same(modelId, config);
    if (present) return { model: present, isNew: false };
    const bringUp = (evict: boolean, signal: AbortSignal) => this.#lifeCycle.bringUp(model, evict, signal);
    const model = new RegisteredModel({ order, config, located, bringUp });
    this.#models.add(model);
    return { model, isNew: true };
  }

  async #reload(model: RegisteredModel, graceMs: number, config = model.config): Promise<void> {
    const before = { located: model.located, config: model.config };
    const located = await this.#locate(config);
    if (located.modelId !== model.modelId) {
      const message = `model '${model.modelId}' cannot become '${located.modelId}'; give the configuration its modelId`;
      throw new ManagerError('INVALID_CONFIG', message);
    }
    Object.assign(model, { located, config });
    try {
      await this.#lifeCycle.replace(model, graceMs);
    } catch (error) {
      // The one that runs is started again from where it came from, and one that was configured anew is as it was.
      if (model.life || config !== before.config) Object.assign(model, before);
      throw error;
    }
  }

  #recordEviction(record: EvictionRecord): void {
    this.#evictions.push(record);
    if (this.#evictions.length > MAX_EVICTION_RECORDS) this.#evictions.shift();
    this.metrics.recordEviction(record.modelId, record.reason);
    this.#tell('eviction', record);
  }

  async #locate(config: ResolvedModelConfig): Promise<LocatedModel> {
    if (config.address !== undefined) return elsewhere(config);
    const lockfile = this.#lockfile;
    return this.#locateModel(config, {
      signal: this.#closing.signal,
      onProgress: (progress) => this.#tell('download', progress),
      ...(lockfile && { lockfile }),
    });
  }

  /** What a listener throws is its own affair, and must not end in the middle of a model's life. */
  #tell<Name extends keyof ManagerEvents>(name: Name, ...event: ManagerEvents[Name]): void {
    try {
      (this as EventEmitter).emit(name, ...event);
    } catch (error) {
      this.#logger.error(`a listener of '${name}' failed: ${(error as Error)?.stack ?? error}`);
    }
  }
}

function everyInterval(intervalMs: number, work: () => void): () => void {
  const timer = setInterval(work, intervalMs).unref();
  return () => clearInterval(timer);
}

/** A model that runs on another machine has no files here. */
function elsewhere({ modelId, source, engine = 'onnx' }: ResolvedModelConfig): LocatedModel {
  return { modelId: modelId ?? source, engine, folder: '', file: '', fileBytes: 0 };
}
