import { describe, expect, it, vi } from 'vitest';
import {
  judgeMemoryPressure,
  MemoryPressure,
  type MemoryPressureState,
  type MemoryReadings,
} from './memory-pressure.js';

const MIB = 2 ** 20;

function readings({
  stall,
  used,
  available = 10_000,
}: {
  stall?: number;
  used?: number;
  available?: number;
}): MemoryReadings {
  return {
    stall: stall === undefined ? undefined : { percent: stall, source: '/proc/pressure/memory' },
    containers:
      used === undefined ? [] : [{ folder: '/sys/fs/cgroup/a', limitBytes: 1000 * MIB, usedBytes: used * MIB }],
    availableBytes: available * MIB,
    totalBytes: 16_000 * MIB,
  };
}

/** A watched machine, and what it was said to be. */
function watched(options: { intervalMs?: number; repeatMs?: number } = {}) {
  let now = readings({});
  let look = () => {};
  const stop = vi.fn();
  const told: MemoryPressureState['level'][] = [];
  const pressure = new MemoryPressure({
    probes: {
      memoryStall: () => now.stall,
      cgroupMemory: () => now.containers,
      availableMemoryBytes: () => now.availableBytes,
      totalMemoryBytes: () => now.totalBytes,
    },
  });
  const every = vi.fn((_intervalMs: number, work: () => void) => {
    look = work;
    return stop;
  });
  const end = pressure.watch(({ level }) => told.push(level), { ...options, every });
  return {
    told,
    every,
    stop,
    end,
    pressure,
    look(reading: Parameters<typeof readings>[0]) {
      now = readings(reading);
      look();
      return told.splice(0);
    },
  };
}

describe('memory', () => {
  it.each([
    { what: 'nothing', reading: {}, part: undefined },
    { what: 'a little waiting', reading: { stall: 19.99 }, part: undefined },
    { what: 'much waiting', reading: { stall: 20 }, part: '20 % of the last 10 seconds (/proc/pressure/memory)' },
    { what: 'a container with room', reading: { used: 949 }, part: undefined },
    {
      what: 'a container that is nearly full',
      reading: { used: 950 },
      part: '950 MiB of the 1000 MiB of /sys/fs/cgroup/a',
    },
    { what: 'a machine with room', reading: { available: 801 }, part: undefined },
    {
      what: 'a machine that is nearly full',
      reading: { available: 800 },
      part: 'of 16000 MiB of memory 800 MiB are left',
    },
  ])('with $what is scarce: $part', ({ reading, part }) => {
    const state = judgeMemoryPressure(readings(reading));
    expect(state.level).toBe(part ? 'high' : 'none');
    expect(state.reason).toEqual(part && expect.stringContaining(part));
    expect(state.readings).toEqual(readings(reading));
  });

  it('that is scarce for several reasons says them all', () => {
    const { reason } = judgeMemoryPressure(readings({ stall: 50, used: 1000, available: 1 }));
    expect(reason?.split('; ')).toHaveLength(3);
  });

  it.each([
    { reading: { stall: 10 }, level: 'high' },
    { reading: { stall: 9.99 }, level: 'none' },
    { reading: { used: 900 }, level: 'high' },
    { reading: { used: 899 }, level: 'none' },
    { reading: { available: 1200 }, level: 'high' },
    { reading: { available: 1201 }, level: 'none' },
  ])('that was scarce is $level with $reading', ({ reading, level }) => {
    expect(judgeMemoryPressure(readings(reading), {}, 'high').level).toBe(level);
  });

  it('is scarce where the caller says', () => {
    const thresholds = { stallPercent: 5, limitPercent: 50, floorBytes: 100 * MIB };
    expect(judgeMemoryPressure(readings({ stall: 5 }), thresholds).level).toBe('high');
    expect(judgeMemoryPressure(readings({ used: 500 }), thresholds).level).toBe('high');
    expect(judgeMemoryPressure(readings({ available: 101 }), thresholds).level).toBe('none');
  });
});

describe('watching memory', () => {
  it('tells when it becomes scarce, and when that is over, and does not flap', () => {
    const { look } = watched();
    expect(look({ stall: 15 })).toEqual([]);
    expect(look({ stall: 21 })).toEqual(['high']);
    for (const stall of [19, 21, 12, 25]) expect(look({ stall })).toEqual([]);
    expect(look({ stall: 9 })).toEqual(['none']);
    for (const stall of [12, 19, 0]) expect(look({ stall })).toEqual([]);
    expect(look({ used: 990 })).toEqual(['high']);
  });

  it('tells again while it stays scarce', () => {
    const { look, every } = watched({ intervalMs: 500, repeatMs: 2000 });
    expect(every).toHaveBeenCalledWith(500, expect.any(Function));
    const told = Array.from({ length: 9 }, () => look({ stall: 50 }).length);
    expect(told).toEqual([1, 0, 0, 0, 1, 0, 0, 0, 1]);
    expect(look({})).toEqual(['none']);
    expect(look({ stall: 50 })).toEqual(['high']);
  });

  it('looks once a second by default, and ends', () => {
    const { every, end, stop } = watched();
    expect(every).toHaveBeenCalledWith(1000, expect.any(Function));
    end();
    expect(stop).toHaveBeenCalledOnce();
  });

  it('remembers what it saw', () => {
    const { pressure, look } = watched();
    look({ stall: 30 });
    expect(pressure.check()).toMatchObject({ level: 'high' });
    look({ stall: 15 });
    expect(pressure.check()).toMatchObject({ level: 'high' });
  });

  it('works on this machine, and keeps no process alive', () => {
    const before = process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length;
    const pressure = new MemoryPressure();
    const { level, readings: now } = pressure.check();
    expect(['none', 'high']).toContain(level);
    expect(now.availableBytes).toBeGreaterThan(0);
    const stop = pressure.watch(() => {});
    expect(process.getActiveResourcesInfo().filter((name) => name === 'Timeout')).toHaveLength(before);
    stop();
  });
});
