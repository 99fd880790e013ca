import { posix } from 'node:path';
import type { Machine } from './machine.js';

// The limits of a container, of a systemd unit or of a job, by cgroup v2:
// https://docs.kernel.org/admin-guide/cgroup-v2.html

const ROOT = '/sys/fs/cgroup';

/** One cgroup that this process is in, itself or by an ancestor, and that limits memory. */
export interface CgroupMemory {
  /** Its folder. */
  readonly folder: string;
  /**
   * The smaller of `memory.max`, past which the kernel kills, and `memory.high`, past which it slows everything down.
   * In bytes.
   */
  readonly limitBytes: number;
  /**
   * What cannot be given back at once: `memory.current` without `inactive_file` of `memory.stat`, the file contents
   * that the kernel drops first. In bytes.
   */
  readonly usedBytes: number;
}

type Files = Pick<Machine, 'readText'>;

/**
 * The folders of this process's cgroup and of all its ancestors, from the inside out. Empty where there is no cgroup v2.
 * In a container with a cgroup namespace the container's own cgroup is the root.
 */
export function cgroupFolders({ readText }: Files): readonly string[] {
  const path = /^0::(\/.*)$/m.exec(readText('/proc/self/cgroup') ?? '')?.[1];
  if (path === undefined) return [];
  const folders: string[] = [];
  // A process that is outside of its own cgroup namespace's root has a path with `..`; normalize() ends it at the root.
  for (let at = posix.normalize(path); at !== '/'; at = posix.dirname(at)) folders.push(posix.join(ROOT, at));
  return [...folders, ROOT];
}

/** What limits this process's memory, from the inside out; empty where nothing does. */
export function cgroupMemory(files: Files): readonly CgroupMemory[] {
  return cgroupFolders(files).flatMap((folder) => {
    const limitBytes = Math.min(limit(files, `${folder}/memory.max`), limit(files, `${folder}/memory.high`));
    if (limitBytes === Number.POSITIVE_INFINITY) return [];
    const currentBytes = Number(files.readText(`${folder}/memory.current`) ?? 0);
    const inactive = /^inactive_file (\d+)$/m.exec(files.readText(`${folder}/memory.stat`) ?? '')?.[1];
    // The two are read one after the other, so the difference can be a little below 0.
    return { folder, limitBytes, usedBytes: Math.max(0, currentBytes - Number(inactive ?? 0)) };
  });
}

/** How much of a cgroup's limit is left, in bytes. */
export function cgroupAvailableBytes({ limitBytes, usedBytes }: CgroupMemory): number {
  return Math.max(0, limitBytes - usedBytes);
}

/**
 * How many processors' time this process may take by `cpu.max`, of itself or an ancestor; infinite where nothing limits
 * it. Node.js 20 does not know of it: in a container with two processors of 64 it counts 64.
 */
export function cgroupProcessors(files: Files): number {
  const shares = cgroupFolders(files).map((folder) => {
    const [, quota, period] = /^(\d+) (\d+)/.exec(files.readText(`${folder}/cpu.max`) ?? '') ?? [];
    return quota && period ? Number(quota) / Number(period) : Number.POSITIVE_INFINITY;
  });
  return Math.min(...shares, Number.POSITIVE_INFINITY);
}

/** A limit of 0 is one, and holds; `max`, or no such file, is none. */
function limit({ readText }: Files, path: string): number {
  const text = readText(path)?.trim();
  return text && /^\d+$/.test(text) ? Number(text) : Number.POSITIVE_INFINITY;
}
