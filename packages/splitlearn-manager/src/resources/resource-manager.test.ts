import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import { machineProbes, type ResourceProbes } from './probes.js';
import { ResourceManager } from './resource-manager.js';

const MIB = 2 ** 20;

function probes(machine: { totalMiB?: number; availableMiB?: number; cores?: number } = {}): ResourceProbes {
  const { totalMiB = 1000, availableMiB = totalMiB, cores = 8 } = machine;
  return {
    totalMemoryBytes: () => totalMiB * MIB,
    availableMemoryBytes: () => availableMiB * MIB,
    cores: () => cores,
  };
}

function failure(work: () => unknown): ManagerError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(ManagerError);
    return error as ManagerError;
  }
  return expect.fail('nothing was thrown');
}

describe('the memory limit', () => {
  it('is 80 percent of the memory, unless told otherwise', () => {
    const limitMiB = (options: object) =>
      new ResourceManager({ probes: probes(), ...options }).getCurrentUsage().memoryLimitBytes / MIB;
    expect(limitMiB({})).toBe(800);
    expect(limitMiB({ maxMemoryPercent: 50 })).toBe(500);
    expect(limitMiB({ memoryLimitBytes: 30 * MIB })).toBe(30);
    expect(limitMiB({ memoryLimitBytes: 30 * MIB, maxMemoryPercent: 50 })).toBe(30);
  });

  it('is kept to over all models together', () => {
    const manager = new ResourceManager({ probes: probes() });
    manager.reserve('a', 500 * MIB);
    expect(manager.hasEnoughMemory(300 * MIB)).toBe(true);
    expect(manager.hasEnoughMemory(300 * MIB + 1)).toBe(false);
    manager.reserve('b', 300 * MIB);
    expect(manager.hasEnoughMemory()).toBe(true);
    expect(manager.hasEnoughMemory(1)).toBe(false);
    manager.releaseModel('a');
    expect(manager.hasEnoughMemory(500 * MIB)).toBe(true);
    expect(manager.getCurrentUsage().reservedBytes).toBe(300 * MIB);
  });

  it('counts what a model turned out to take, in place of what was thought', () => {
    const manager = new ResourceManager({ probes: probes() });
    manager.reserve('a', 500 * MIB);
    manager.recordUse('a', 100 * MIB);
    expect(manager.getCurrentUsage().reservedBytes).toBe(100 * MIB);
    expect(manager.hasEnoughMemory(700 * MIB)).toBe(true);
    manager.recordUse('not loaded', 1);
    expect(manager.getCurrentUsage().reservedBytes).toBe(100 * MIB);
  });

  it('is of no use where the machine has less left', () => {
    const manager = new ResourceManager({ probes: probes({ availableMiB: 200 }) });
    expect(manager.hasEnoughMemory(200 * MIB)).toBe(true);
    expect(manager.hasEnoughMemory(201 * MIB)).toBe(false);
  });

  it('is told with all the numbers when a model does not fit, and with what to do', () => {
    const manager = new ResourceManager({ probes: probes({ availableMiB: 900 }) });
    manager.reserve('small', 300 * MIB);
    const error = failure(() => manager.reserve('large', 600 * MIB));
    expect(error.code).toBe('INSUFFICIENT_MEMORY');
    for (const part of [
      "'large'",
      '600 MiB',
      '800 MiB',
      '300 MiB',
      '900 MiB',
      'unload',
      'memoryLimitBytes',
      'maxMemoryPercent',
    ]) {
      expect(error.message).toContain(part);
    }
    expect(manager.getCurrentUsage()).toMatchObject({ reservedBytes: 300 * MIB, reservedThreads: 8 });
  });
});

describe('a reservation', () => {
  it('replaces the one that the model had', () => {
    const manager = new ResourceManager({ probes: probes() });
    manager.reserve('a', 700 * MIB, 2);
    expect(manager.reserve('a', 800 * MIB, 3)).toEqual({ memoryBytes: 800 * MIB, threads: 3 });
    expect(manager.getCurrentUsage()).toMatchObject({ reservedBytes: 800 * MIB, reservedThreads: 3 });
  });

  it('is kept when another in its place does not fit', () => {
    const manager = new ResourceManager({ probes: probes() });
    manager.reserve('a', 700 * MIB);
    failure(() => manager.reserve('a', 801 * MIB));
    expect(manager.getCurrentUsage().reservedBytes).toBe(700 * MIB);
  });

  it.each([
    { cores: 8, plannedModels: 1, threads: 8 },
    { cores: 8, plannedModels: 3, threads: 2 },
    { cores: 2, plannedModels: 5, threads: 1 },
    { cores: 4, plannedModels: 0, threads: 4 },
  ])('gives $threads of $cores cores to each of $plannedModels planned models', ({ cores, plannedModels, threads }) => {
    const manager = new ResourceManager({ probes: probes({ cores }), plannedModels });
    expect(manager.reserve('a', 0).threads).toBe(threads);
  });

  it('is never given away twice, whatever comes and goes', () => {
    const model = fc.constantFrom('a', 'b', 'c', 'd');
    const step = fc.oneof(
      fc.record({ type: fc.constant('reserve' as const), model, mib: fc.nat({ max: 900 }) }),
      fc.record({ type: fc.constant('release' as const), model }),
    );
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const manager = new ResourceManager({ probes: probes() });
        const granted = new Map<string, number>();
        for (const one of steps) {
          if (one.type === 'release') {
            manager.releaseModel(one.model);
            granted.delete(one.model);
            continue;
          }
          const others = [...granted].filter(([name]) => name !== one.model).reduce((sum, [, mib]) => sum + mib, 0);
          const reserve = () => manager.reserve(one.model, one.mib * MIB);
          if (others + one.mib <= 800) {
            reserve();
            granted.set(one.model, one.mib);
          } else expect(failure(reserve).code).toBe('INSUFFICIENT_MEMORY');
          const total = [...granted.values()].reduce((sum, mib) => sum + mib, 0);
          expect(manager.getCurrentUsage().reservedBytes).toBe(total * MIB);
        }
      }),
    );
  });
});

describe("this machine's probes", () => {
  it('give sensible numbers', () => {
    const total = machineProbes.totalMemoryBytes();
    expect(total).toBeGreaterThan(64 * MIB);
    expect(total).toBeLessThan(2 ** 50);
    expect(machineProbes.availableMemoryBytes()).toBeGreaterThan(0);
    expect(machineProbes.cores()).toBeGreaterThanOrEqual(1);
  });
});
