import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';
import { type Machine, thisMachine } from './machine.js';
import { machineProbes } from './probes.js';
import { processTreeBytes } from './process-memory.js';

const KIB = 1024;

/** A Linux machine with nothing but these files; a folder has the names that come next in their paths. */
function linux(files: Readonly<Record<string, string>>, pid = 1): Machine {
  const list = (folder: string) => {
    const inside = Object.keys(files).filter((path) => path.startsWith(`${folder}/`));
    return [...new Set(inside.map((path) => path.slice(folder.length + 1).split('/')[0] ?? ''))];
  };
  return {
    ...thisMachine,
    platform: 'linux',
    pid,
    exists: (path) => path in files,
    readTextLater: async (path) => files[path],
    listLater: async (path) => list(path),
  };
}

const pss = (kilobytes: number) => `1-2 ---p 0 0:0 0 [rollup]\nRss:  9999 kB\nPss:  ${kilobytes} kB\nPss_Dirty: 1 kB\n`;
const rss = (kilobytes: number) => `Name:\tnode\nVmHWM:\t 99999 kB\nVmRSS:\t ${kilobytes} kB\n`;

const MEMORY = {
  '/proc/10/smaps_rollup': pss(100),
  '/proc/11/smaps_rollup': pss(20),
  // Of another user: only RSS may be read.
  '/proc/12/status': rss(3),
  '/proc/13/smaps_rollup': pss(5000),
};

describe('the memory of a process and its descendants', () => {
  it('is the sum of their parts of it', async () => {
    const children = {
      '/proc/1/task/1/children': '10 13 ',
      '/proc/10/task/10/children': '',
      '/proc/10/task/17/children': '11 ',
      '/proc/11/task/11/children': '12 99 ', // 99 has ended meanwhile
    };
    expect(await processTreeBytes(linux({ ...MEMORY, ...children }), 10)).toBe(123 * KIB);
    expect(await processTreeBytes(linux({ ...MEMORY, ...children }), 12)).toBe(3 * KIB);
  });

  it('is found without lists of children as well', async () => {
    const stats = {
      '/proc/10/stat': '10 (node) S 1 10 10',
      '/proc/11/stat': '11 (a ) S 7 (b)) S 10 10 10',
      '/proc/12/stat': '12 (node) R 11 10 10',
      '/proc/13/stat': '13 (node) S 1 10 10',
      '/proc/meminfo': '',
    };
    expect(await processTreeBytes(linux({ ...MEMORY, ...stats }), 10)).toBe(123 * KIB);
  });

  it('is not known of a process that is gone', async () => {
    expect(await processTreeBytes(linux(MEMORY), 55)).toBe(undefined);
  });

  it('is known of this process alone where there is no /proc', async () => {
    const machine: Machine = { ...linux({}, 7), platform: 'darwin', ownResidentBytes: () => 5 };
    expect(await processTreeBytes(machine, 7)).toBe(5);
    expect(await processTreeBytes(machine, 8)).toBe(undefined);
  });

  it.runIf(process.platform === 'linux')('is measured of processes that are there', async () => {
    const script = `require('node:child_process').spawn(process.execPath, ['-e', 'console.log(1); process.stdin.resume()'], { stdio: ['pipe', 'inherit', 'inherit'] })`;
    const parent = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    try {
      await once(parent.stdout, 'data');
      const { pid = 0 } = parent;
      const own = (await processTreeBytes({ ...thisMachine, listLater: async () => [] }, pid)) ?? 0;
      const tree = (await machineProbes.processTreeBytes(pid)) ?? 0;
      expect(own).toBeGreaterThan(2 ** 20);
      expect(tree).toBeGreaterThan(own + 2 ** 20);
      expect(tree).toBeLessThan(2 ** 30);
    } finally {
      parent.kill('SIGKILL');
    }
    expect(await machineProbes.processTreeBytes(2 ** 30)).toBe(undefined);
  });
});
