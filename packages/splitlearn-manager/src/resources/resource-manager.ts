import { ManagerError } from '../errors.js';
import { chooseDevice, type Device, type GpuRoom, gpuIndex } from './devices.js';
import type { GpuInfo } from './gpu.js';
import { machineProbes, type ResourceProbes } from './probes.js';
import { type Reservation, Reservations, type ReserveRequest } from './reservations.js';

export type { Reservation, ReserveRequest };

export interface ResourceManagerOptions {
  /** How much of the machine's (or container's) memory the models may take, in percent. Default 80. */
  readonly maxMemoryPercent?: number;
  /** How much memory the models may take, in bytes. Default: what `maxMemoryPercent` says. */
  readonly memoryLimitBytes?: number;
  /** How many models will be loaded at once; each is given an equal share of the cores. Default 1. */
  readonly plannedModels?: number;
  /** In place of what this machine says. Default: none. */
  readonly probes?: Partial<ResourceProbes>;
  /** A clock in milliseconds. Default: `performance.now`. */
  readonly now?: () => number;
}

/** What the models have, and what is left. */
export interface ResourceUsage {
  /** What the models may take together, in bytes. */
  readonly memoryLimitBytes: number;
  /** What counts toward that, in bytes: of each model what it was measured to take, until then what was estimated. */
  readonly reservedBytes: number;
  /** What the models that have been measured take, in bytes. */
  readonly usedBytes: number;
  /** What the machine could still give, in bytes. */
  readonly availableBytes: number;
  readonly cores: number;
  /** The threads of all models together. More than `cores` only where there are more models than cores. */
  readonly reservedThreads: number;
  /** The GPUs as they were when they were last asked for; empty before. */
  readonly gpus: readonly GpuUsage[];
}

export interface GpuUsage extends GpuInfo {
  /** What the models take of it, in bytes: of each what it was measured to take, until then what was estimated. */
  readonly reservedBytes: number;
}

export interface ResourceDemand {
  /** In bytes. */
  readonly memoryBytes: number;
  /** What is wanted of a GPU's own memory, in bytes. */
  readonly gpu?: { readonly index: number; readonly memoryBytes: number };
  /** A model whose reservation this one would replace. */
  readonly modelId?: string;
}

/** Whether a model fits, and from which numbers that follows. */
export interface ResourceCheck {
  /** `memoryBytes` ≤ `memoryLimitBytes` − `countedBytes`, and `memoryBytes` ≤ `availableBytes` − `pendingBytes`. */
  readonly fits: boolean;
  /** How much memory has to be freed for it to fit, in bytes; 0 where it fits. More than there is where it never can. */
  readonly shortBytes: number;
  /** What the models may take together, in bytes. */
  readonly memoryLimitBytes: number;
  /** What counts toward that, in bytes. */
  readonly countedBytes: number;
  /** What the machine could still give, in bytes. */
  readonly availableBytes: number;
  /** The part of it that models which are being loaded, or grow, will take, in bytes. */
  readonly pendingBytes: number;
  /** Of the GPU's memory, in bytes; where it was asked for. `freeBytes` is absent for one that is not known. */
  readonly gpu?: { readonly index: number; readonly freeBytes?: number; readonly shortBytes: number };
  /** The same in words. */
  readonly reason: string;
}

/** How long what `nvidia-smi` said is taken for true, in milliseconds: it takes tens of them itself. */
const GPU_CACHE_MS = 1_000;

/**
 * Hands out memory and threads, so that models that are loaded at the same time do not count on the same ones. All that
 * hands out or gives back is synchronous, so that nothing comes between looking and taking.
 *
 * A model fits where it does both of these: it does not take what counts beyond the limit, and not more than what the
 * machine has left for it. {@link Reservations} has the arithmetic. The limit is looked up every time, because that of a
 * container can be changed while it runs.
 */
export class ResourceManager {
  readonly #probes: ResourceProbes;
  readonly #maxMemoryPercent: number;
  readonly #fixedLimitBytes: number | undefined;
  readonly #plannedModels: number;
  readonly #now: () => number;
  readonly #reservations = new Reservations();
  /** What the GPUs said last, and when they were asked. */
  #gpus: { readonly infos: readonly GpuInfo[]; readonly askedMs: number } = { infos: [], askedMs: -Infinity };
  #asking: { readonly answer: Promise<readonly GpuInfo[]>; readonly askedMs: number } | undefined;

  constructor(options: ResourceManagerOptions = {}) {
    const { maxMemoryPercent = 80, memoryLimitBytes, plannedModels = 1, probes, now } = options;
    this.#probes = { ...machineProbes, ...probes };
    this.#maxMemoryPercent = maxMemoryPercent;
    this.#fixedLimitBytes = memoryLimitBytes;
    this.#plannedModels = Math.max(1, plannedModels);
    this.#now = now ?? (() => performance.now());
  }

  /** Whether a model of that size fits beside those that are there. */
  hasEnoughMemory(memoryBytes = 0): boolean {
    return this.checkAvailableResources({ memoryBytes }).fits;
  }

  /** How much memory would have to be freed for a model of that size to fit, in bytes; 0 where it fits. */
  shortfall(memoryBytes = 0): number {
    return this.checkAvailableResources({ memoryBytes }).shortBytes;
  }

  /**
   * Whether a model fits, and from which numbers that follows. GPUs are judged by what `getGpuInfo` or `findBestDevice`
   * last found, and what has been reserved since.
   */
  checkAvailableResources({ memoryBytes, gpu, modelId }: ResourceDemand): ResourceCheck {
    const memoryLimitBytes = this.#memoryLimitBytes();
    const availableBytes = this.#probes.availableMemoryBytes();
    const countedBytes = this.#reservations.countedBytes(modelId);
    const pendingBytes = this.#reservations.pendingBytes(modelId);
    const leftBytes = Math.max(0, availableBytes - pendingBytes);
    const shortBytes = Math.max(0, countedBytes + memoryBytes - memoryLimitBytes, memoryBytes - leftBytes);
    const numbers = { shortBytes, memoryLimitBytes, countedBytes, availableBytes, pendingBytes };
    const words =
      `of the ${mib(memoryLimitBytes)} that models may take ${mib(countedBytes)} are taken, and the machine has ` +
      `${mib(availableBytes)} left${pendingBytes > 0 ? `, ${mib(pendingBytes)} of them for models that are being loaded or grow` : ''}`;
    if (!gpu) return { fits: shortBytes === 0, ...numbers, reason: words };
    const { index } = gpu;
    const freeBytes = this.#gpuRooms(modelId).find((room) => room.index === index)?.freeBytes;
    const gpuShortBytes = Math.max(0, gpu.memoryBytes - (freeBytes ?? 0));
    return {
      fits: shortBytes === 0 && gpuShortBytes === 0 && freeBytes !== undefined,
      ...numbers,
      gpu: { index, shortBytes: gpuShortBytes, ...(freeBytes !== undefined && { freeBytes }) },
      reason: `${words}; ${freeBytes === undefined ? `there is no GPU cuda:${index}` : `cuda:${index} has ${mib(freeBytes)} left`}`,
    };
  }

  /**
   * Grants a model memory and threads; `releaseModel` gives them back. Reserving again replaces the reservation, also
   * one that has been measured: until `recordUse` the estimate counts again.
   *
   * The threads of all models together stay within the cores as far as each can have one: a model is granted what it
   * wishes (by default the cores divided by the planned models), but not more than are left, and at least 1.
   *
   * @param request - The memory in bytes, or all that the model asks for.
   * @param threads - Where `request` is a number: the threads it wishes for.
   * @throws ManagerError `INSUFFICIENT_MEMORY`, with all the numbers, and then nothing has changed;
   * `DEVICE_UNAVAILABLE` where memory of a GPU is asked for that no one has seen.
   */
  reserve(modelId: string, request: number | ReserveRequest, threads?: number): Reservation {
    const asked: ReserveRequest =
      typeof request === 'number' ? { memoryBytes: request, ...(threads !== undefined && { threads }) } : request;
    const { memoryBytes, device, gpuMemoryBytes = 0 } = asked;
    const index = device === undefined ? undefined : gpuIndex(device);
    const gpu = index === undefined ? undefined : { index, memoryBytes: gpuMemoryBytes };
    const check = this.checkAvailableResources({ memoryBytes, modelId, ...(gpu && { gpu }) });
    if (!check.fits) throw refusal(modelId, asked, check);
    return this.#reservations.set(modelId, asked, this.#grantThreads(modelId, asked));
  }

  /** What a model has been granted; `undefined` where it has no reservation. */
  getReservation(modelId: string): Reservation | undefined {
    return this.#reservations.get(modelId);
  }

  /**
   * Replaces the estimate that a model was loaded with by what it turned out to take. May be called again whenever it is
   * measured again. Does nothing for a model without reservation.
   *
   * @param usedBytes - All its processes together, in bytes.
   * @param gpuUsedBytes - Of the GPU's memory, in bytes. Default: what was known before.
   */
  recordUse(modelId: string, usedBytes: number, gpuUsedBytes?: number): void {
    this.#reservations.settle(modelId, usedBytes, gpuUsedBytes, this.#now());
  }

  /** Gives back what a model was granted. */
  releaseModel(modelId: string): void {
    this.#reservations.delete(modelId);
  }

  getCurrentUsage(): ResourceUsage {
    const reservations = this.#reservations;
    return {
      memoryLimitBytes: this.#memoryLimitBytes(),
      reservedBytes: reservations.countedBytes(),
      usedBytes: reservations.usedBytes(),
      availableBytes: this.#probes.availableMemoryBytes(),
      cores: this.#probes.cores(),
      reservedThreads: reservations.threads(),
      gpus: this.#gpus.infos.map((gpu) => ({ ...gpu, reservedBytes: reservations.gpuCountedBytes(gpu.index) })),
    };
  }

  /** The GPUs of NVIDIA, by `nvidia-smi`; none where it is not there or does not answer. Asks at most once a second. */
  getGpuInfo(): Promise<readonly GpuInfo[]> {
    const askedMs = this.#now();
    if (this.#asking && askedMs - this.#asking.askedMs < GPU_CACHE_MS) return this.#asking.answer;
    const answer = this.#probes.gpus().then((infos) => {
      // An answer that took long may be overtaken by a later one.
      if (askedMs >= this.#gpus.askedMs) this.#gpus = { infos, askedMs };
      return infos;
    });
    this.#asking = { answer, askedMs };
    return answer;
  }

  /**
   * Picks what a model computes on: see {@link chooseDevice}. What has been reserved of a GPU counts as taken. To keep
   * the memory, reserve it right after, with the device.
   *
   * @param wish - Default `auto`, which is `cpu` where there is nothing better.
   * @throws ManagerError `DEVICE_UNAVAILABLE`, with what is missing and what to do; `INVALID_CONFIG`.
   */
  async findBestDevice(wish = 'auto', { memoryBytes = 0 }: { readonly memoryBytes?: number } = {}): Promise<Device> {
    const backends = this.#probes.backends();
    const usesGpus = /^(auto|cuda)/.test(wish) && backends.some(({ name, problem }) => name === 'cuda' && !problem);
    if (usesGpus) await this.getGpuInfo();
    return chooseDevice(wish, { backends, gpus: this.#gpuRooms(), memoryBytes });
  }

  #memoryLimitBytes(): number {
    return this.#fixedLimitBytes ?? Math.floor((this.#probes.totalMemoryBytes() * this.#maxMemoryPercent) / 100);
  }

  #grantThreads(modelId: string, { threads, instances = 1 }: ReserveRequest): number {
    const cores = this.#probes.cores();
    const left = cores - this.#reservations.threads(modelId);
    const wished = threads ?? Math.floor(cores / this.#plannedModels / instances);
    return Math.max(1, Math.min(wished, Math.floor(left / instances)));
  }

  /** What is left of each GPU for a new model: less than it says itself where models are still being loaded. */
  #gpuRooms(except?: string): GpuRoom[] {
    const { infos, askedMs } = this.#gpus;
    return infos.map(({ index, name, totalBytes, freeBytes }) => {
      const counted = this.#reservations.gpuCountedBytes(index, except);
      const pending = this.#reservations.gpuPendingBytes(index, askedMs, except);
      return { index, name, freeBytes: Math.max(0, Math.min(freeBytes - pending, totalBytes - counted)) };
    });
  }
}

function refusal(
  modelId: string,
  { memoryBytes, gpuMemoryBytes = 0 }: ReserveRequest,
  check: ResourceCheck,
): ManagerError {
  const { gpu, shortBytes, reason } = check;
  if (gpu && gpu.freeBytes === undefined) {
    const message = `model '${modelId}' cannot have memory of cuda:${gpu.index}: no such GPU has been seen; ask findBestDevice for a device`;
    return new ManagerError('DEVICE_UNAVAILABLE', message);
  }
  const onGpu = gpu ? ` and ${mib(gpuMemoryBytes)} of cuda:${gpu.index}` : '';
  const advice = shortBytes > 0 ? ', or raise memoryLimitBytes or maxMemoryPercent' : ', or use another device';
  const message = `model '${modelId}' needs about ${mib(memoryBytes)}${onGpu}, but ${reason}; unload a model${advice}`;
  return new ManagerError('INSUFFICIENT_MEMORY', message);
}

function mib(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}
