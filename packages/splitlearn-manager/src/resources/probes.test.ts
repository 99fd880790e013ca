import { describe, expect, it } from 'vitest';
import { cgroupFolders } from './cgroup.js';
import { type Machine, thisMachine } from './machine.js';
import { machineProbes, probesOf, type ResourceProbes } from './probes.js';

const MIB = 2 ** 20;
const ROOT = '/sys/fs/cgroup';

/** A Linux machine with 1000 MiB and 8 processors, and nothing but these files. */
function linux(files: Readonly<Record<string, string>> = {}, differences: Partial<Machine> = {}): ResourceProbes {
  return probesOf({
    ...thisMachine,
    platform: 'linux',
    readText: (path) => files[path],
    totalMemoryBytes: () => 1000 * MIB,
    availableMemoryBytes: () => 700 * MIB,
    constrainedMemoryBytes: () => 2 ** 64,
    processors: () => 8,
    ...differences,
  });
}

/** The files of a cgroup v2; sizes in MiB. */
function cgroup(folder: string, sizes: { max?: number; high?: number; current?: number; inactive?: number }) {
  const { max, high, current = 0, inactive = 0 } = sizes;
  const bytes = (mib: number | undefined) => (mib === undefined ? 'max\n' : `${mib * MIB}\n`);
  return {
    [`${folder}/memory.max`]: bytes(max),
    [`${folder}/memory.high`]: bytes(high),
    [`${folder}/memory.current`]: bytes(current),
    [`${folder}/memory.stat`]: `anon 5\nactive_file 3\ninactive_file ${inactive * MIB}\n`,
  };
}

const MEMINFO = `MemTotal:       1024000 kB\nMemFree:          100 kB\nMemAvailable:     ${600 * 1024} kB\n`;

describe('the cgroups of a process', () => {
  it.each([
    { text: '0::/', folders: [ROOT] },
    { text: '4:memory:/v1\n0::/a.slice/b.scope\n', folders: [`${ROOT}/a.slice/b.scope`, `${ROOT}/a.slice`, ROOT] },
    { text: '0::/../../other', folders: [`${ROOT}/other`, ROOT] },
    { text: '4:memory:/v1\n', folders: [] },
    { text: undefined, folders: [] },
  ])('are those of $text and its ancestors', ({ text, folders }) => {
    expect(cgroupFolders({ readText: () => text })).toEqual(folders);
  });
});

describe('the memory', () => {
  it("is the machine's where nothing limits it", () => {
    for (const files of [
      { '/proc/meminfo': MEMINFO },
      { '/proc/meminfo': MEMINFO, '/proc/self/cgroup': '0::/' },
      { '/proc/meminfo': MEMINFO, '/proc/self/cgroup': '0::/a', ...cgroup(`${ROOT}/a`, { current: 100 }) },
    ]) {
      expect(linux(files).totalMemoryBytes()).toBe(1000 * MIB);
      expect(linux(files).availableMemoryBytes()).toBe(600 * MIB);
      expect(linux(files).cgroupMemory()).toEqual([]);
    }
  });

  it('is that of the tightest cgroup around the process, by memory.max or memory.high', () => {
    const probes = linux({
      '/proc/meminfo': MEMINFO,
      '/proc/self/cgroup': '0::/outer/middle/inner',
      ...cgroup(`${ROOT}/outer`, { max: 500, current: 450, inactive: 20 }),
      ...cgroup(`${ROOT}/outer/middle`, { max: 400, high: 300, current: 150 }),
      ...cgroup(`${ROOT}/outer/middle/inner`, { current: 100 }),
    });
    expect(probes.totalMemoryBytes()).toBe(300 * MIB);
    expect(probes.availableMemoryBytes()).toBe(70 * MIB);
    expect(probes.cgroupMemory()).toEqual([
      { folder: `${ROOT}/outer/middle`, limitBytes: 300 * MIB, usedBytes: 150 * MIB },
      { folder: `${ROOT}/outer`, limitBytes: 500 * MIB, usedBytes: 430 * MIB },
    ]);
  });

  it("is never less than nothing, and what is left never more than the machine's", () => {
    const files = (sizes: Parameters<typeof cgroup>[1]) => ({
      '/proc/meminfo': MEMINFO,
      '/proc/self/cgroup': '0::/',
      ...cgroup(ROOT, sizes),
    });
    expect(linux(files({ high: 100, current: 120 })).availableMemoryBytes()).toBe(0);
    expect(linux(files({ max: 900, current: 10, inactive: 20 })).availableMemoryBytes()).toBe(600 * MIB);
    expect(linux(files({ max: 5000 })).totalMemoryBytes()).toBe(1000 * MIB);
  });

  it('is what Node.js says of cgroup v1 and of other systems', () => {
    const v1 = { '/proc/meminfo': MEMINFO, '/proc/self/cgroup': '4:memory:/a\n0::/\n' };
    const constrained = { constrainedMemoryBytes: () => 200 * MIB, availableMemoryBytes: () => 50 * MIB };
    expect(linux(v1, constrained).totalMemoryBytes()).toBe(200 * MIB);
    expect(linux(v1, constrained).availableMemoryBytes()).toBe(50 * MIB);
    const other = linux({}, { platform: 'darwin', constrainedMemoryBytes: () => 0 });
    expect(other.totalMemoryBytes()).toBe(1000 * MIB);
    expect(other.availableMemoryBytes()).toBe(700 * MIB);
    expect(other.cgroupMemory()).toEqual([]);
    expect(other.memoryStall()).toBe(undefined);
    expect(linux().availableMemoryBytes()).toBe(700 * MIB);
  });
});

describe('the cores', () => {
  it.each([
    { quota: 'max 100000', cores: 8 },
    { quota: '250000 100000', cores: 2 },
    { quota: '50000 100000', cores: 1 },
    { quota: '1600000 100000', cores: 8 },
  ])('are $cores of 8 where cpu.max is $quota', ({ quota, cores }) => {
    const files = { '/proc/self/cgroup': '0::/a/b', [`${ROOT}/a/cpu.max`]: `${quota}\n` };
    expect(linux(files).cores()).toBe(cores);
  });
});

describe('the pressure stall information', () => {
  const stall = (percent: string) =>
    `some avg10=${percent} avg60=0.00 avg300=0.00 total=5\nfull avg10=1.00 avg60=0.00\n`;

  it("is the container's, else the machine's", () => {
    const machine = { '/proc/self/cgroup': '0::/a', '/proc/pressure/memory': stall('3.50') };
    expect(linux(machine).memoryStall()).toEqual({ percent: 3.5, source: '/proc/pressure/memory' });
    const source = `${ROOT}/a/memory.pressure`;
    expect(linux({ ...machine, [source]: stall('12.25') }).memoryStall()).toEqual({ percent: 12.25, source });
  });

  it('is absent where the kernel has none', () => {
    expect(linux().memoryStall()).toBe(undefined);
    expect(linux({ '/proc/pressure/memory': '' }).memoryStall()).toBe(undefined);
  });
});

describe("this machine's probes", () => {
  it('give sensible numbers', async () => {
    const total = machineProbes.totalMemoryBytes();
    expect(total).toBeGreaterThan(64 * MIB);
    expect(total).toBeLessThan(2 ** 50);
    expect(machineProbes.availableMemoryBytes()).toBeGreaterThan(0);
    expect(machineProbes.availableMemoryBytes()).toBeLessThanOrEqual(total);
    expect(machineProbes.cores()).toBeGreaterThanOrEqual(1);
    expect(machineProbes.cores()).toBe(Math.floor(machineProbes.cores()));
    for (const { limitBytes, usedBytes } of machineProbes.cgroupMemory()) {
      expect(limitBytes).toBeGreaterThanOrEqual(0);
      expect(usedBytes).toBeGreaterThanOrEqual(0);
    }
    const percent = machineProbes.memoryStall()?.percent ?? 0;
    expect(percent).toBeGreaterThanOrEqual(0);
    expect(percent).toBeLessThanOrEqual(100);
    for (const { totalBytes } of await machineProbes.gpus()) expect(totalBytes).toBeGreaterThan(MIB);
    expect(machineProbes.backends()).toContainEqual({ name: 'cpu' });
  });
});
