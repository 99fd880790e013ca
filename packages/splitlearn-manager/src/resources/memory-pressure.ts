import type { CgroupMemory } from './cgroup.js';
import type { MemoryStall } from './memory-stall.js';
import { machineProbes, type ResourceProbes } from './probes.js';

/** When memory is taken for scarce. */
export interface MemoryPressureThresholds {
  /**
   * For how much of the last 10 seconds some task had to wait for memory, in percent. Below half of it the pressure is
   * over. Default 20.
   */
  readonly stallPercent?: number;
  /** How much of a container's limit is used, in percent. 5 below it the pressure is over. Default 95. */
  readonly limitPercent?: number;
  /**
   * How little the machine may have left, in bytes. With half as much again the pressure is over.
   * Default: 5 percent of the memory, but at most 1 GiB.
   */
  readonly floorBytes?: number;
}

/** What the judgement is made from. */
export interface MemoryReadings {
  /** `undefined` where the kernel does not say: then only nearness to the limits counts. */
  readonly stall: MemoryStall | undefined;
  readonly containers: readonly CgroupMemory[];
  /** What the machine could still give, in bytes. */
  readonly availableBytes: number;
  /** In bytes. */
  readonly totalBytes: number;
}

export interface MemoryPressureState {
  readonly level: 'none' | 'high';
  /** Why it is high, with the numbers; absent where it is not. */
  readonly reason?: string;
  readonly readings: MemoryReadings;
}

/**
 * Says whether memory is scarce. Nothing but its parameters matters.
 *
 * @param before - The level before. From `high` it goes back only well below the thresholds, so that it does not change
 * to and fro around one.
 */
export function judgeMemoryPressure(
  readings: MemoryReadings,
  thresholds: MemoryPressureThresholds = {},
  before: MemoryPressureState['level'] = 'none',
): MemoryPressureState {
  const { stall, containers, availableBytes, totalBytes } = readings;
  const { stallPercent = 20, limitPercent = 95, floorBytes = Math.min(0.05 * totalBytes, 2 ** 30) } = thresholds;
  const high = before === 'high';
  const reasons: string[] = [];
  if (stall && stall.percent >= (high ? stallPercent / 2 : stallPercent))
    reasons.push(`tasks waited for memory in ${stall.percent} % of the last 10 seconds (${stall.source})`);
  for (const { folder, limitBytes, usedBytes } of containers) {
    if (usedBytes < (limitBytes * (high ? limitPercent - 5 : limitPercent)) / 100) continue;
    reasons.push(`${mib(usedBytes)} of the ${mib(limitBytes)} of ${folder} are used`);
  }
  if (availableBytes <= (high ? 1.5 : 1) * floorBytes)
    reasons.push(`of ${mib(totalBytes)} of memory ${mib(availableBytes)} are left`);
  return reasons.length === 0 ? { level: 'none', readings } : { level: 'high', reason: reasons.join('; '), readings };
}

type MemoryPressureProbes = Pick<
  ResourceProbes,
  'memoryStall' | 'cgroupMemory' | 'availableMemoryBytes' | 'totalMemoryBytes'
>;

export interface MemoryPressureOptions extends MemoryPressureThresholds {
  /** In place of what this machine says. Default: none. */
  readonly probes?: Partial<MemoryPressureProbes>;
}

export interface WatchOptions {
  /** Milliseconds between looks. Default 1000. */
  readonly intervalMs?: number;
  /**
   * Milliseconds after which pressure that lasts is reported again. Not much less than the 10 seconds over which the
   * kernel's number is averaged, because until then what was done about it hardly shows. Default 10000.
   */
  readonly repeatMs?: number;
  /** Calls again and again until what it returned is called. Default: `setInterval`, which keeps no process alive. */
  readonly every?: (intervalMs: number, work: () => void) => () => void;
}

/**
 * Watches how scarce memory is: by the kernel's pressure stall information
 * (https://docs.kernel.org/accounting/psi.html), and by how near the container or the machine is to its end.
 */
export class MemoryPressure {
  readonly #probes: MemoryPressureProbes;
  readonly #thresholds: MemoryPressureThresholds;
  #level: MemoryPressureState['level'] = 'none';

  constructor({ probes, ...thresholds }: MemoryPressureOptions = {}) {
    this.#probes = { ...machineProbes, ...probes };
    this.#thresholds = thresholds;
  }

  /** Looks now. The level that it finds is the one that the next look starts from. */
  check(): MemoryPressureState {
    const probes = this.#probes;
    const readings = {
      stall: probes.memoryStall(),
      containers: probes.cgroupMemory(),
      availableBytes: probes.availableMemoryBytes(),
      totalBytes: probes.totalMemoryBytes(),
    };
    const state = judgeMemoryPressure(readings, this.#thresholds, this.#level);
    this.#level = state.level;
    return state;
  }

  /**
   * Tells when memory becomes scarce, again every `repeatMs` while it stays so, and once when it is over.
   *
   * @param onPressure - Must not throw: it is called from a timer.
   * @returns Ends the watching.
   */
  watch(onPressure: (state: MemoryPressureState) => void, options: WatchOptions = {}): () => void {
    const { intervalMs = 1_000, repeatMs = 10_000, every = everyInterval } = options;
    const repeat = Math.max(1, Math.round(repeatMs / intervalMs));
    /** How many looks in a row have found it scarce. */
    let looks = 0;
    return every(intervalMs, () => {
      const state = this.check();
      if (state.level === 'high') {
        if (looks++ % repeat === 0) onPressure(state);
      } else if (looks > 0) {
        looks = 0;
        onPressure(state);
      }
    });
  }
}

function everyInterval(intervalMs: number, work: () => void): () => void {
  const timer = setInterval(work, intervalMs).unref();
  return () => clearInterval(timer);
}

function mib(bytes: number): string {
  return `${Math.ceil(bytes / 2 ** 20)} MiB`;
}
