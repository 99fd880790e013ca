import { readFile } from 'node:fs/promises';

/**
 * How often a process with a limit is looked at, in milliseconds. A process that fills memory as fast as it can gets as
 * far past its limit as it can fill in this time: up to 190 MB where a run of ONNX Runtime did nothing else. A look took
 * 0.2 ms of processor time. Measured on Linux x64 (Node.js 20, two cores).
 */
const LOOK_MS = 100;

/**
 * The memory that a process has in RAM, in bytes; `undefined` where there is no /proc, and when the process is gone.
 *
 * Of `status`, not of `statm`, which counts in pages, whose size Node.js does not tell
 * (https://man7.org/linux/man-pages/man5/proc_pid_status.5.html).
 */
export async function residentBytes(pid: number | undefined): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
  const kilobytes = /^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
}

export interface MemoryWatch {
  readonly limitBytes: number;
  /** The memory that is taken now, in bytes; `undefined` where that cannot be said. */
  readonly read: () => Promise<number | undefined>;
  /** Called once, with the bytes that were too many; then the watch is over. */
  readonly onExceeded: (bytes: number) => void;
  readonly lookMs?: number;
}

/** Looks at a process's memory again and again, until it is too much or the returned function is called. */
export function watchMemory({ limitBytes, read, onExceeded, lookMs = LOOK_MS }: MemoryWatch): () => void {
  let over = false;
  let timer: NodeJS.Timeout;
  const look = async () => {
    const bytes = await read();
    if (over) return;
    if (bytes !== undefined && bytes > limitBytes) return onExceeded(bytes);
    lookAgain();
  };
  const lookAgain = () => {
    timer = setTimeout(() => void look(), lookMs).unref();
  };
  lookAgain();
  return () => {
    over = true;
    clearTimeout(timer);
  };
}
