// What processes take, read from /proc by somebody else than themselves. Linux only.
import { readdirSync, readFileSync } from 'node:fs';

const PAGE_BYTES = 4_096;

export const hasProc = process.platform === 'linux';

/** A process's resident memory in bytes; 0 when it has ended. */
export function residentBytes(pid) {
  return Number(read(`/proc/${pid}/statm`).split(' ')[1] ?? 0) * PAGE_BYTES;
}

/** Resident memory in bytes of a process and of all that it has started. Pages that several share count for each. */
export function treeBytes(pid) {
  const started = descendants(pid).reduce((sum, child) => sum + residentBytes(child), 0);
  return { started, all: residentBytes(pid) + started };
}

function descendants(pid) {
  const children = threads(pid).flatMap((thread) =>
    read(`/proc/${pid}/task/${thread}/children`).split(' ').filter(Boolean),
  );
  return [...children, ...children.flatMap(descendants)];
}

function threads(pid) {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return []; // it has ended
  }
}

function read(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
