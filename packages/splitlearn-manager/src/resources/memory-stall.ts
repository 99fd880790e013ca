import { cgroupFolders } from './cgroup.js';
import type { Machine } from './machine.js';

/** Pressure stall information of memory: https://docs.kernel.org/accounting/psi.html */
export interface MemoryStall {
  /** For how much of the last 10 seconds at least one task had to wait for memory, in percent: `some avg10`. */
  readonly percent: number;
  /** The file that it is from: the container's where there is one, else the machine's. */
  readonly source: string;
}

/** `undefined` where the kernel was built without it or has it turned off. */
export function memoryStall(files: Pick<Machine, 'readText'>): MemoryStall | undefined {
  const container = cgroupFolders(files).at(0);
  const sources = [...(container ? [`${container}/memory.pressure`] : []), '/proc/pressure/memory'];
  for (const source of sources) {
    const percent = /^some avg10=([\d.]+)/m.exec(files.readText(source) ?? '')?.[1];
    if (percent !== undefined) return { percent: Number(percent), source };
  }
  return undefined;
}
