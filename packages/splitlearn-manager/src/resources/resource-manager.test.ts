import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import type { ResourceProbes } from './probes.js';
import { ResourceManager } from './resource-manager.js';

const MIB = 2 ** 20;

function probes(machine: { totalMiB?: number; availableMiB?: number; cores?: number } = {}): Partial<ResourceProbes> {
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

  it('follows that of a container that is changed', () => {
    let totalBytes = 1000 * MIB;
    const manager = new ResourceManager({ probes: { ...probes(), totalMemoryBytes: () => totalBytes } });
    expect(manager.hasEnoughMemory(800 * MIB)).toBe(true);
    totalBytes = 500 * MIB;
    expect(manager.getCurrentUsage().memoryLimitBytes).toBe(400 * MIB);
    expect(manager.hasEnoughMemory(800 * MIB)).toBe(false);
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

  it('is told as plain data as well', () => {
    const manager = new ResourceManager({ probes: probes({ availableMiB: 900 }) });
    manager.reserve('loaded', 300 * MIB);
    manager.recordUse('loaded', 200 * MIB);
    manager.reserve('loading', 100 * MIB);
    const numbers = {
      memoryLimitBytes: 800 * MIB,
      countedBytes: 300 * MIB,
      availableBytes: 900 * MIB,
      pendingBytes: 100 * MIB,
    };
    const fitting = manager.checkAvailableResources({ memoryBytes: 500 * MIB });
    expect(fitting).toEqual({ fits: true, shortBytes: 0, ...numbers, reason: expect.stringContaining('300 MiB') });
    const tooLarge = manager.checkAvailableResources({ memoryBytes: 700 * MIB });
    expect(tooLarge).toEqual({ ...fitting, fits: false, shortBytes: 200 * MIB });
    expect(manager.shortfall(700 * MIB)).toBe(200 * MIB);
    expect(manager.shortfall(500 * MIB)).toBe(0);
    expect(manager.shortfall()).toBe(0);
    expect(manager.checkAvailableResources({ memoryBytes: 700 * MIB, modelId: 'loaded' }).fits).toBe(true);
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
});

describe('what the machine has left', () => {
  it('is not given to two models that are being loaded at the same time', () => {
    const manager = new ResourceManager({ probes: probes({ availableMiB: 500 }) });
    manager.reserve('a', 300 * MIB);
    expect(manager.hasEnoughMemory(200 * MIB)).toBe(true);
    expect(manager.shortfall(300 * MIB)).toBe(100 * MIB);
    const error = failure(() => manager.reserve('b', 300 * MIB));
    expect(error.message).toContain('300 MiB of them for models that are being loaded');
    expect(manager.getReservation('b')).toBe(undefined);
  });

  it('lacks what loaded models use already, so that it is not taken off again', () => {
    let availableMiB = 500;
    const manager = new ResourceManager({
      probes: { ...probes(), availableMemoryBytes: () => availableMiB * MIB },
    });
    manager.reserve('a', 300 * MIB);
    availableMiB -= 250;
    manager.recordUse('a', 250 * MIB);
    expect(manager.hasEnoughMemory(250 * MIB)).toBe(true);
    expect(manager.hasEnoughMemory(251 * MIB)).toBe(false);
  });

  it('is kept for what a model takes only when it is used', () => {
    const manager = new ResourceManager({ probes: probes() });
    manager.reserve('a', { memoryBytes: 500 * MIB, growthBytes: 200 * MIB });
    const numbers = () => {
      const { countedBytes, pendingBytes } = manager.checkAvailableResources({ memoryBytes: 0 });
      return { counted: countedBytes / MIB, pending: pendingBytes / MIB };
    };
    expect(numbers()).toEqual({ counted: 500, pending: 500 });
    manager.recordUse('a', 250 * MIB);
    expect(numbers()).toEqual({ counted: 450, pending: 200 });
    manager.recordUse('a', 400 * MIB);
    expect(numbers()).toEqual({ counted: 450, pending: 50 });
    manager.recordUse('a', 600 * MIB);
    expect(numbers()).toEqual({ counted: 600, pending: 0 });
  });

  it('is pending again when a model is to be loaded anew', () => {
    const manager = new ResourceManager({ probes: probes() });
    manager.reserve('a', 500 * MIB);
    manager.recordUse('a', 400 * MIB);
    expect(manager.getReservation('a')).toEqual({ memoryBytes: 500 * MIB, usedBytes: 400 * MIB, threads: 8 });
    expect(manager.getCurrentUsage().usedBytes).toBe(400 * MIB);
    expect(manager.reserve('a', 450 * MIB)).toEqual({ memoryBytes: 450 * MIB, threads: 8 });
    expect(manager.checkAvailableResources({ memoryBytes: 0 }).pendingBytes).toBe(450 * MIB);
    expect(manager.getCurrentUsage()).toMatchObject({ reservedBytes: 450 * MIB, usedBytes: 0 });
  });
});

/** What a load or a model in use may do, in MiB. */
const model = fc.constantFrom('a', 'b', 'c', 'd');
const steps = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ type: fc.constant('reserve' as const), model, mib: fc.nat({ max: 900 }) }) },
    fc.record({ type: fc.constant('use' as const), model, mib: fc.nat({ max: 900 }) }),
    fc.record({ type: fc.constant('release' as const), model }),
  ),
  { maxLength: 40 },
);

describe('memory, whatever comes and goes,', () => {
  it('is never given away twice, and what is given back is exactly what was had', () => {
    fc.assert(
      fc.property(steps, (all) => {
        // A machine on which a model takes what it is measured to take, and before that nothing.
        const used = new Map<string, number>();
        const estimates = new Map<string, number>();
        const sum = (values: Iterable<number>) => [...values].reduce((one, other) => one + other, 0);
        const availableMiB = () => Math.max(0, 950 - sum(used.values()));
        const manager = new ResourceManager({
          probes: { ...probes(), availableMemoryBytes: () => availableMiB() * MIB },
        });
        const counted = (except?: string) =>
          sum([...estimates].filter(([name]) => name !== except).map(([name, mib]) => used.get(name) ?? mib));
        const pending = (except?: string) =>
          sum([...estimates].filter(([name]) => name !== except && !used.has(name)).map(([, mib]) => mib));
        for (const step of all) {
          if (step.type === 'release') {
            const had = estimates.has(step.model) ? (used.get(step.model) ?? estimates.get(step.model) ?? 0) : 0;
            const before = manager.getCurrentUsage().reservedBytes;
            manager.releaseModel(step.model);
            estimates.delete(step.model);
            used.delete(step.model);
            expect(before - manager.getCurrentUsage().reservedBytes).toBe(had * MIB);
          } else if (step.type === 'use') {
            manager.recordUse(step.model, step.mib * MIB);
            if (estimates.has(step.model)) used.set(step.model, step.mib);
          } else {
            const left = Math.max(0, availableMiB() - pending(step.model));
            const fits = counted(step.model) + step.mib <= 800 && step.mib <= left;
            const demand = { memoryBytes: step.mib * MIB, modelId: step.model };
            expect(manager.checkAvailableResources(demand).fits).toBe(fits);
            const before = manager.getCurrentUsage();
            if (fits) {
              manager.reserve(step.model, step.mib * MIB);
              estimates.set(step.model, step.mib);
              used.delete(step.model);
              const { reservedBytes, memoryLimitBytes } = manager.getCurrentUsage();
              expect(reservedBytes).toBeLessThanOrEqual(memoryLimitBytes);
            } else {
              expect(failure(() => manager.reserve(step.model, step.mib * MIB)).code).toBe('INSUFFICIENT_MEMORY');
              expect(manager.getCurrentUsage()).toEqual(before);
            }
          }
          expect(manager.getCurrentUsage()).toMatchObject({
            reservedBytes: counted() * MIB,
            usedBytes: sum(used.values()) * MIB,
          });
        }
        for (const name of ['a', 'b', 'c', 'd']) manager.releaseModel(name);
        expect(manager.getCurrentUsage()).toMatchObject({ reservedBytes: 0, usedBytes: 0, reservedThreads: 0 });
      }),
      { numRuns: 300 },
    );
  });

  it('is short by exactly what has to be freed', () => {
    fc.assert(
      fc.property(fc.nat(800), fc.nat(1000), fc.nat(1000), (loadedMiB, availableMiB, wantedMiB) => {
        let available = 1000;
        const manager = new ResourceManager({
          probes: { ...probes(), availableMemoryBytes: () => available * MIB },
        });
        manager.reserve('a', loadedMiB * MIB);
        manager.recordUse('a', loadedMiB * MIB);
        available = availableMiB;
        const short = manager.shortfall(wantedMiB * MIB) / MIB;
        const fitsAfterFreeing = (freed: number) => {
          manager.recordUse('a', (loadedMiB - freed) * MIB);
          available = availableMiB + freed;
          return manager.hasEnoughMemory(wantedMiB * MIB);
        };
        expect(fitsAfterFreeing(0)).toBe(short === 0);
        expect(fitsAfterFreeing(short)).toBe(true);
        if (short > 0) expect(fitsAfterFreeing(short - 1)).toBe(false);
      }),
    );
  });
});
