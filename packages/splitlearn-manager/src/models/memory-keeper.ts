import type { Logger } from '@splitlearn/comm';
import type { MemoryPressure } from '../resources/memory-pressure.js';
import type { ResourceManager } from '../resources/resource-manager.js';
import type { RegisteredModel } from './registered-model.js';

/** How often the models' memory is looked at, in milliseconds. */
const INTERVAL_MS = 1_000;

/** Calls again and again until what it returned is called. */
export type Every = (intervalMs: number, work: () => void) => () => void;

export interface MemoryKeeperOptions {
  readonly resourceManager: ResourceManager;
  readonly pressure: MemoryPressure;
  readonly models: () => Iterable<RegisteredModel>;
  readonly measure: (model: RegisteredModel) => Promise<void>;
  readonly evict: (model: RegisteredModel) => Promise<void>;
  readonly logger: Logger;
  readonly every: Every;
}

/**
 * Looks after loaded models: what they take now is what counts, and where they have grown beyond the limit, or the machine
 * runs out of memory, idle ones are evicted before the kernel ends any.
 */
export class MemoryKeeper {
  readonly #options: MemoryKeeperOptions;
  #stops: (() => void)[] = [];
  #working = false;

  constructor(options: MemoryKeeperOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#stops.length > 0) return;
    const { every, pressure } = this.#options;
    this.#stops = [
      every(INTERVAL_MS, () => void this.#look()),
      pressure.watch(({ level, reason }) => level === 'high' && void this.#evictOne(reason ?? ''), { every }),
    ];
  }

  stop(): void {
    for (const stop of this.#stops.splice(0)) stop();
  }

  async #look(): Promise<void> {
    if (this.#working) return;
    this.#working = true;
    try {
      const { models, measure, resourceManager } = this.#options;
      await Promise.all([...models()].filter(({ life }) => life?.state === 'READY').map(measure));
      const { countedBytes, memoryLimitBytes } = resourceManager.checkAvailableResources({ memoryBytes: 0 });
      if (countedBytes > memoryLimitBytes) await this.#evictOne('the models have grown beyond their limit');
    } catch (error) {
      this.#options.logger.warn(`the memory of the models could not be looked at: ${(error as Error).message}`);
    } finally {
      this.#working = false;
    }
  }

  /** The idle model that nobody has asked for the longest. One at a time: what that gave back shows only afterwards. */
  async #evictOne(why: string): Promise<void> {
    const idle = [...this.#options.models()].filter(
      ({ life, busy, config, removal, evicting }) =>
        life?.state === 'READY' && !busy && !config.pinned && !removal && !evicting,
    );
    const [model] = idle.sort((one, other) => one.lastUsedAtMs - other.lastUsedAtMs);
    if (!model) return;
    const { logger, evict } = this.#options;
    logger.warn(`model '${model.modelId}' is evicted: ${why}`);
    await evict(model).catch((error: Error) =>
      logger.warn(`model '${model.modelId}' could not be evicted: ${error.message}`),
    );
  }
}
