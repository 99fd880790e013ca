import { ManagerError } from '../errors.js';
import { machineProbes, type ResourceProbes } from './probes.js';

export interface ResourceManagerOptions {
  /** How much of the machine's (or container's) memory the models may take, in percent. Default 80. */
  readonly maxMemoryPercent?: number;
  /** How much memory the models may take, in bytes. Default: what `maxMemoryPercent` says. */
  readonly memoryLimitBytes?: number;
  /** How many models will be loaded at once; each is given an equal share of the cores. Default 1. */
  readonly plannedModels?: number;
  /** Default: this machine. */
  readonly probes?: ResourceProbes;
}

/** What a model has been granted. */
export interface Reservation {
  readonly memoryBytes: number;
  /** How many threads it may compute with. */
  readonly threads: number;
}

export interface ResourceUsage {
  /** What the models may take together, in bytes. */
  readonly memoryLimitBytes: number;
  /** What they have been granted, in bytes. */
  readonly reservedBytes: number;
  /** What the machine could still give, in bytes. */
  readonly availableBytes: number;
  readonly cores: number;
  /** The threads of all models together. Beyond `cores` they slow each other down. */
  readonly reservedThreads: number;
}

/** Hands out memory and threads, so that models that are loaded at the same time do not count on the same ones. */
export class ResourceManager {
  readonly #probes: ResourceProbes;
  readonly #memoryLimitBytes: number;
  readonly #plannedModels: number;
  readonly #reservations = new Map<string, Reservation>();

  constructor(options: ResourceManagerOptions = {}) {
    const { maxMemoryPercent = 80, memoryLimitBytes, plannedModels = 1, probes = machineProbes } = options;
    this.#probes = probes;
    this.#memoryLimitBytes = memoryLimitBytes ?? Math.floor((probes.totalMemoryBytes() * maxMemoryPercent) / 100);
    this.#plannedModels = Math.max(1, plannedModels);
  }

  /** Whether a model of that size fits beside those that are there. */
  hasEnoughMemory(memoryBytes = 0): boolean {
    const { memoryLimitBytes, reservedBytes, availableBytes } = this.getCurrentUsage();
    return reservedBytes + memoryBytes <= memoryLimitBytes && memoryBytes <= availableBytes;
  }

  /**
   * Grants a model memory and threads; `releaseModel` gives them back. Reserving again replaces the reservation.
   *
   * @param threads - Default: the cores divided by the planned models, at least 1.
   * @throws ManagerError `INSUFFICIENT_MEMORY`, with all the numbers.
   */
  reserve(modelId: string, memoryBytes: number, threads?: number): Reservation {
    const before = this.#reservations.get(modelId);
    this.#reservations.delete(modelId);
    if (!this.hasEnoughMemory(memoryBytes)) {
      if (before) this.#reservations.set(modelId, before);
      throw this.#insufficient(modelId, memoryBytes);
    }
    const share = Math.max(1, Math.floor(this.#probes.cores() / this.#plannedModels));
    const reservation = { memoryBytes, threads: threads ?? share };
    this.#reservations.set(modelId, reservation);
    return reservation;
  }

  /** Replaces the estimate that a model was loaded with by what it turned out to take. */
  recordUse(modelId: string, memoryBytes: number): void {
    const reservation = this.#reservations.get(modelId);
    if (reservation) this.#reservations.set(modelId, { ...reservation, memoryBytes });
  }

  /** Gives back what a model was granted. */
  releaseModel(modelId: string): void {
    this.#reservations.delete(modelId);
  }

  getCurrentUsage(): ResourceUsage {
    const reservations = [...this.#reservations.values()];
    return {
      memoryLimitBytes: this.#memoryLimitBytes,
      reservedBytes: reservations.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0),
      availableBytes: this.#probes.availableMemoryBytes(),
      cores: this.#probes.cores(),
      reservedThreads: reservations.reduce((sum, { threads }) => sum + threads, 0),
    };
  }

  #insufficient(modelId: string, memoryBytes: number): ManagerError {
    const { memoryLimitBytes, reservedBytes, availableBytes } = this.getCurrentUsage();
    const mib = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;
    return new ManagerError(
      'INSUFFICIENT_MEMORY',
      `model '${modelId}' needs about ${mib(memoryBytes)}, but of the ${mib(memoryLimitBytes)} that models may take ` +
        `${mib(reservedBytes)} are taken, and the machine has ${mib(availableBytes)} left; unload a model, or raise ` +
        'memoryLimitBytes or maxMemoryPercent',
    );
  }
}
