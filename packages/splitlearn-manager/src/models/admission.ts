import { abortable } from '../abortable.js';
import { ManagerError } from '../errors.js';
import type { Reservation, ReserveRequest, ResourceManager } from '../resources/resource-manager.js';
import { chooseEvictions, type EvictionCandidate, type EvictionPolicy } from './eviction.js';
import type { RegisteredModel } from './registered-model.js';

/** Why a model was evicted. */
export type EvictionReason =
  /** Another model needed its memory. */
  | 'memory'
  /** Another model needed its place among `maxModels`. */
  | 'max-models'
  /** Nobody had asked for it for `keepAliveMs`. */
  | 'idle'
  /** The machine was running out of memory, or the models had grown beyond their limit. */
  | 'pressure';

/** One eviction, as `listEvictions` gives it. */
export interface EvictionRecord {
  readonly modelId: string;
  readonly reason: EvictionReason;
  /** The model that needed the room, if one did. */
  readonly forModelId?: string;
  /** How long nobody had asked for the evicted one, in milliseconds. */
  readonly idleMs: number;
  /** What its end gave back, in bytes. */
  readonly reclaimedBytes: number;
  /** When, in milliseconds since the epoch. */
  readonly atMs: number;
}

/** What would happen if a model were loaded now, and why. */
export interface AdmissionPlan {
  readonly modelId: string;
  /** Whether it would be loaded, be it after evictions. */
  readonly fits: boolean;
  /** In one sentence. */
  readonly reason: string;
  /** What it is thought to need, in bytes. */
  readonly memoryBytes: number;
  readonly memoryLimitBytes: number;
  /** What the loaded models count for, in bytes. */
  readonly countedBytes: number;
  /** What the machine could still give, in bytes. */
  readonly availableBytes: number;
  /** What is missing before anything is evicted, in bytes. */
  readonly shortBytes: number;
  readonly loadedModels: number;
  readonly maxModels: number;
  /** The models that would go, or are being unloaded already. Those that are busy would be waited for. */
  readonly evictions: readonly EvictionCandidate[];
}

export interface AdmissionOptions {
  readonly resourceManager: ResourceManager;
  readonly maxModels: number;
  readonly policy?: EvictionPolicy;
  /** All models that the manager knows. */
  readonly models: () => Iterable<RegisteredModel>;
  readonly evict: (
    model: RegisteredModel,
    reason: EvictionReason,
    forModelId: string,
    signal: AbortSignal,
  ) => Promise<void>;
}

/** Makes room for models, one after the other in the order in which they asked, so that no two count on the same. */
export class Admission {
  readonly #options: AdmissionOptions;
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /** What `admit` would do. */
  plan(modelId: string, memoryBytes: number, itself?: RegisteredModel): AdmissionPlan {
    const { resourceManager, maxModels, policy } = this.#options;
    const loaded = [...this.#options.models()].filter((model) => model !== itself && model.life);
    const check = resourceManager.checkAvailableResources({ memoryBytes });
    const { memoryLimitBytes, countedBytes, availableBytes, shortBytes } = check;
    const leaving = loaded.filter(({ removal }) => removal).map(toCandidate);
    const leavingBytes = leaving.reduce((sum, model) => sum + model.memoryBytes, 0);
    const shortage = {
      bytes: Math.max(0, shortBytes - leavingBytes),
      models: Math.max(0, loaded.length + 1 - maxModels - leaving.length),
    };
    const candidates = loaded.filter(({ config, removal }) => !config.pinned && !removal).map(toCandidate);
    const chosen = chooseEvictions(candidates, shortage, policy);
    // What is being unloaded anyway is only waited for.
    const short = shortBytes > 0 || loaded.length + 1 > maxModels;
    const evictions = chosen && short ? [...leaving, ...chosen] : chosen;
    const numbers = { memoryBytes, memoryLimitBytes, countedBytes, availableBytes, shortBytes };
    const plan = { modelId, ...numbers, loadedModels: loaded.length, maxModels };
    const reason = explain(plan, evictions);
    return { ...plan, fits: evictions !== undefined, reason, evictions: evictions ?? [] };
  }

  /**
   * Reserves what a model needs, after evicting others where it must. Waits for those that are busy.
   *
   * @param evict - Whether others may be evicted.
   * @param signal - Gives up.
   * @throws ManagerError `INSUFFICIENT_MEMORY`, `TOO_MANY_MODELS`, with all the numbers; the signal's reason.
   */
  admit(
    model: RegisteredModel,
    reservationId: string,
    request: ReserveRequest,
    evict: boolean,
    signal: AbortSignal,
  ): Promise<Reservation> {
    const admitted = this.#last.then(() => this.#admit(model, reservationId, request, evict, signal));
    this.#last = admitted.catch(() => {});
    return admitted;
  }

  async #admit(
    model: RegisteredModel,
    reservationId: string,
    request: ReserveRequest,
    evict: boolean,
    signal: AbortSignal,
  ): Promise<Reservation> {
    for (;;) {
      signal.throwIfAborted();
      const plan = this.plan(model.modelId, request.memoryBytes, model);
      if (plan.fits && plan.evictions.length === 0) {
        return this.#options.resourceManager.reserve(reservationId, request);
      }
      // What is being loaded may turn out to take less than was thought.
      const starting = [...this.#options.models()].flatMap((other) => (other !== model && other.starting) || []);
      if (starting.length > 0 && request.memoryBytes <= plan.memoryLimitBytes) {
        await abortable(Promise.all(starting), signal);
        continue;
      }
      if (!plan.fits || !evict) throw refusal(plan);
      const leaving = new Set(plan.evictions.map(({ modelId }) => modelId));
      const reason = plan.shortBytes > 0 ? 'memory' : 'max-models';
      await Promise.all(
        [...this.#options.models()]
          .filter(({ modelId }) => leaving.has(modelId))
          .map((other) => this.#options.evict(other, reason, model.modelId, signal)),
      );
    }
  }
}

function toCandidate(model: RegisteredModel): EvictionCandidate {
  const { modelId, memoryBytes, lastUsedAtMs, busy } = model;
  return { modelId, memoryBytes, idleMs: Date.now() - lastUsedAtMs, busy };
}

type Numbers = Omit<AdmissionPlan, 'fits' | 'reason' | 'evictions'>;

function explain(numbers: Numbers, evictions: readonly EvictionCandidate[] | undefined): string {
  const { memoryBytes, memoryLimitBytes, countedBytes, availableBytes, loadedModels, maxModels } = numbers;
  const room =
    `it needs about ${mib(memoryBytes)}; of the ${mib(memoryLimitBytes)} that models may take ${mib(countedBytes)} are ` +
    `taken, the machine has ${mib(availableBytes)} left, and ${loadedModels} of at most ${maxModels} models are loaded`;
  if (!evictions) return `it does not fit, even without all models that may go: ${room}`;
  if (evictions.length === 0) return `it fits: ${room}`;
  const names = evictions.map(({ modelId, busy }) => `'${modelId}'${busy ? ' (busy)' : ''}`).join(', ');
  return `it fits when ${names} ${evictions.length === 1 ? 'goes' : 'go'}: ${room}`;
}

function refusal(plan: AdmissionPlan): ManagerError {
  const tooMany = plan.shortBytes === 0;
  const remedy = tooMany ? 'raise maxModels' : 'raise memoryLimitBytes or maxMemoryPercent';
  return new ManagerError(
    tooMany ? 'TOO_MANY_MODELS' : 'INSUFFICIENT_MEMORY',
    `model '${plan.modelId}' cannot be loaded: ${plan.reason}; unload or unpin a model, or ${remedy}`,
  );
}

function mib(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}
