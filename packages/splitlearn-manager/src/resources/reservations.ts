import { gpuIndex } from './devices.js';

/** What a model asks for before it is loaded. */
export interface ReserveRequest {
  /** What it is thought to take when it is loaded and used, in bytes. */
  readonly memoryBytes: number;
  /** The part of `memoryBytes` that it takes only when it is used, such as a KV cache, in bytes. Default 0. */
  readonly growthBytes?: number;
  /** How many threads one run of it computes with. Default: its share of the cores. */
  readonly threads?: number;
  /** How many times it is loaded, each with threads of its own. `memoryBytes` is for all of them. Default 1. */
  readonly instances?: number;
  /** What it computes on: what `findBestDevice` said. Default `cpu`. */
  readonly device?: string;
  /** What it takes of the device's own memory, in bytes. Counts for `cuda:N` only. Default 0. */
  readonly gpuMemoryBytes?: number;
}

/** What a model has been granted. */
export interface Reservation {
  /** What it was thought to take, in bytes. */
  readonly memoryBytes: number;
  /** What it turned out to take, in bytes; absent until it has been measured. */
  readonly usedBytes?: number;
  /** How many threads one run of each of its instances may compute with. */
  readonly threads: number;
  /** Absent where none was asked for. */
  readonly device?: string;
  /** What it was thought to take of the device's memory, in bytes. */
  readonly gpuMemoryBytes?: number;
}

/** A reservation with what only the arithmetic needs. */
interface Account extends Reservation {
  readonly instances: number;
  readonly growthBytes: number;
  /** What it took when it was measured first, in bytes. */
  readonly firstUsedBytes?: number;
  readonly gpuUsedBytes?: number;
  /** When it was measured first, on the clock of the GPUs' readings, in milliseconds. */
  readonly settledMs?: number;
}

/**
 * Who has been granted what, and the sums of it.
 *
 * Of one model:
 *
 * - *counted* is what it takes of the limit. Until it has been measured that is the estimate, `memoryBytes`. After that
 *   it is what was measured last; of a model with `growthBytes` at least what was measured first plus these.
 * - *pending* is the part of that which it has not taken yet, as far as anyone knows: all of it until it has been
 *   measured, then what is counted without what was measured last.
 *
 * The machine's available memory already lacks what loaded models use, so from it only what is pending is taken off.
 * While a model is being loaded it has part of that already, which then counts twice: that may refuse a model that would
 * just have fitted, and never admits one that does not.
 */
export class Reservations {
  readonly #accounts = new Map<string, Account>();

  get(modelId: string): Reservation | undefined {
    const account = this.#accounts.get(modelId);
    return account && describe(account);
  }

  set(modelId: string, request: ReserveRequest, threads: number): Reservation {
    const { memoryBytes, growthBytes = 0, instances = 1, device, gpuMemoryBytes } = request;
    const account: Account = {
      ...{ memoryBytes, growthBytes: Math.min(growthBytes, memoryBytes), instances, threads },
      ...(device !== undefined && { device }),
      ...(gpuMemoryBytes !== undefined && { gpuMemoryBytes }),
    };
    this.#accounts.set(modelId, account);
    return describe(account);
  }

  /** Nothing where the model has no reservation: it may have been released while it was measured. */
  settle(modelId: string, usedBytes: number, gpuUsedBytes: number | undefined, nowMs: number): void {
    const account = this.#accounts.get(modelId);
    if (!account) return;
    this.#accounts.set(modelId, {
      ...account,
      usedBytes,
      firstUsedBytes: account.firstUsedBytes ?? usedBytes,
      settledMs: account.settledMs ?? nowMs,
      ...(gpuUsedBytes !== undefined && { gpuUsedBytes }),
    });
  }

  delete(modelId: string): void {
    this.#accounts.delete(modelId);
  }

  /** @param except - A model whose reservation is about to be replaced. */
  countedBytes(except?: string): number {
    return this.#sum(countedBytes, except);
  }

  pendingBytes(except?: string): number {
    return this.#sum((account) => countedBytes(account) - (account.usedBytes ?? 0), except);
  }

  usedBytes(): number {
    return this.#sum(({ usedBytes }) => usedBytes ?? 0);
  }

  threads(except?: string): number {
    return this.#sum(({ threads, instances }) => threads * instances, except);
  }

  /** What models take of a GPU's memory: as measured, else as estimated. */
  gpuCountedBytes(index: number, except?: string): number {
    return this.#sum((account) => gpuCountedBytes(account, index), except);
  }

  /** The part of that which a reading of the GPU's memory does not show yet. */
  gpuPendingBytes(index: number, readingMs: number, except?: string): number {
    const unseen = ({ settledMs }: Account) => settledMs === undefined || settledMs >= readingMs;
    return this.#sum((account) => (unseen(account) ? gpuCountedBytes(account, index) : 0), except);
  }

  #sum(part: (account: Account) => number, except?: string): number {
    let sum = 0;
    for (const [modelId, account] of this.#accounts) if (modelId !== except) sum += part(account);
    return sum;
  }
}

function countedBytes({ memoryBytes, usedBytes, firstUsedBytes = 0, growthBytes }: Account): number {
  if (usedBytes === undefined) return memoryBytes;
  return growthBytes > 0 ? Math.max(usedBytes, firstUsedBytes + growthBytes) : usedBytes;
}

function gpuCountedBytes({ device, gpuUsedBytes, gpuMemoryBytes = 0 }: Account, index: number): number {
  return device !== undefined && gpuIndex(device) === index ? (gpuUsedBytes ?? gpuMemoryBytes) : 0;
}

function describe({ memoryBytes, usedBytes, threads, device, gpuMemoryBytes }: Account): Reservation {
  return {
    ...{ memoryBytes, threads },
    ...(usedBytes !== undefined && { usedBytes }),
    ...(device !== undefined && { device }),
    ...(gpuMemoryBytes !== undefined && { gpuMemoryBytes }),
  };
}
