import type { Machine } from './machine.js';

// https://docs.kernel.org/filesystems/proc.html has all of these files.

/**
 * Resident memory of a process and all its descendants, in bytes. Pages that several processes share count in parts
 * (PSS) where the kernel says so, which it does of processes of the same user; else in full (RSS). Without /proc it is
 * known of this process alone, without its descendants. `undefined` where it is not known, or the process is gone.
 */
export async function processTreeBytes(machine: Machine, pid: number): Promise<number | undefined> {
  if (machine.platform !== 'linux') return pid === machine.pid ? machine.ownResidentBytes() : undefined;
  const own = await residentBytes(machine, pid);
  if (own === undefined) return undefined;
  const children = await childrenOf(machine);
  let sum = own;
  const seen = new Set([pid]);
  for (const parent of seen) {
    for (const child of await children(parent)) {
      if (seen.has(child)) continue;
      seen.add(child);
      // One that has ended meanwhile has nothing any more.
      sum += (await residentBytes(machine, child)) ?? 0;
    }
  }
  return sum;
}

async function residentBytes({ readTextLater }: Machine, pid: number): Promise<number | undefined> {
  const pss = kilobytes('Pss', await readTextLater(`/proc/${pid}/smaps_rollup`));
  // VmRSS is what /proc/PID/statm has in pages, whose size Node.js does not tell.
  return pss ?? kilobytes('VmRSS', await readTextLater(`/proc/${pid}/status`));
}

function kilobytes(field: string, text: string | undefined): number | undefined {
  const value = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text ?? '')?.[1];
  return value === undefined ? undefined : Number(value) * 1024;
}

/** How to find the children of a process: from its threads where the kernel has that, else from all processes there are. */
async function childrenOf(machine: Machine): Promise<(pid: number) => Promise<readonly number[]>> {
  const { pid: self, exists, readTextLater, listLater } = machine;
  if (exists(`/proc/${self}/task/${self}/children`)) {
    return async (pid) => {
      const threads = await listLater(`/proc/${pid}/task`);
      const lists = await Promise.all(
        threads.map((thread) => readTextLater(`/proc/${pid}/task/${thread}/children`).then((text) => text ?? '')),
      );
      return lists.flatMap((list) => list.split(' ').filter(Boolean).map(Number));
    };
  }
  const children = new Map<number, number[]>();
  for (const name of await listLater('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    // The parent is the second field after the name in parentheses, which may itself have spaces and parentheses.
    const stat = (await readTextLater(`/proc/${name}/stat`)) ?? '';
    const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
    children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  return async (pid) => children.get(pid) ?? [];
}
