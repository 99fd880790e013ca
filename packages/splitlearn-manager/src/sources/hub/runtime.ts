import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type Clock, systemClock } from '../clock.js';

/** What downloading takes from the machine, and its measures; tests put their own in. */
export interface HubRuntime {
  readonly fetch: typeof fetch;
  readonly clock: Clock;
  /** From 0 up to but not 1. */
  readonly random: () => number;
  /** Bytes that may still be written to the disk of a path, which need not exist yet. */
  readonly freeBytes: (path: string) => Promise<number>;
  /** Larger files are fetched in ranges of so many bytes. Default 16 MiB. */
  readonly rangeBytes: number;
  /** How many requests for files are under way at once. Default 4. */
  readonly parallel: number;
  /** Milliseconds without a byte after which a request is given up and made once more. Default 30000. */
  readonly idleMs: number;
  /** How many requests in a row may fail before the download does; one that brought bytes counts as none. Default 6. */
  readonly attempts: number;
}

export const systemRuntime: HubRuntime = {
  fetch: (...parameters) => fetch(...parameters),
  clock: systemClock,
  random: Math.random,
  freeBytes,
  rangeBytes: 16 * 2 ** 20,
  parallel: 4,
  idleMs: 30_000,
  attempts: 6,
};

async function freeBytes(path: string): Promise<number> {
  const stats = await statfs(path).catch(() => undefined);
  if (stats) return stats.bavail * stats.bsize;
  return dirname(path) === path ? Number.POSITIVE_INFINITY : freeBytes(dirname(path));
}
