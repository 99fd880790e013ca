import type { ModelLoad } from '../models/registered-model.js';
import { gpuIndex } from '../resources/devices.js';
import type { ResourceManager, ResourceUsage } from '../resources/resource-manager.js';

/** How long what is known of the machine is taken for true, in milliseconds: asking it for every request costs too much. */
const USAGE_MS = 1_000;
/** So that of targets without room, too, the one with fewer requests is better. */
const LEAST = 0.001;

type Resources = Pick<ResourceManager, 'getCurrentUsage' | 'getReservation'>;

/** How much memory is left where models run. */
export class Headroom {
  readonly #resourceManager: Resources | undefined;
  readonly #now: () => number;
  #usage: ResourceUsage | undefined;
  #usageMs = 0;

  constructor(resourceManager: Resources | undefined, now: () => number) {
    this.#resourceManager = resourceManager;
    this.#now = now;
  }

  /**
   * What part of the memory is free that a model may take, on its device and of its own limit, from almost 0 to 1. Of one
   * that is not loaded: what would be, if it took no more than its files. One on another machine takes nothing here: 1.
   */
  of(load: ModelLoad): number {
    const { memoryBytes, memoryLimitBytes, fileBytes, reservationId } = load;
    const ownFree = memoryLimitBytes === undefined ? 1 : 1 - memoryBytes / memoryLimitBytes;
    const deviceFree = this.#deviceFree(reservationId, reservationId === undefined ? fileBytes : 0);
    return Math.max(LEAST, Math.min(1, ownFree, deviceFree));
  }

  #deviceFree(reservationId: string | undefined, neededBytes: number): number {
    if (!this.#resourceManager) return 1;
    const reservation = reservationId === undefined ? undefined : this.#resourceManager.getReservation(reservationId);
    const { memoryLimitBytes, reservedBytes, availableBytes, gpus } = this.#look(this.#resourceManager);
    const index = reservation?.device === undefined ? undefined : gpuIndex(reservation.device);
    const gpu = index === undefined ? undefined : gpus.find((one) => one.index === index);
    if (gpu) return Math.min(gpu.freeBytes, gpu.totalBytes - gpu.reservedBytes) / gpu.totalBytes;
    if (reservation ? reservation.memoryBytes === 0 : neededBytes === 0) return 1;
    return (Math.min(memoryLimitBytes - reservedBytes, availableBytes) - neededBytes) / memoryLimitBytes;
  }

  #look(resourceManager: Resources): ResourceUsage {
    const nowMs = this.#now();
    if (!this.#usage || nowMs - this.#usageMs >= USAGE_MS) {
      this.#usage = resourceManager.getCurrentUsage();
      this.#usageMs = nowMs;
    }
    return this.#usage;
  }
}
