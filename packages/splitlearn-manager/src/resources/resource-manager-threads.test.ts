import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ResourceManager } from './resource-manager.js';

function managerWith(cores: number, plannedModels: number): ResourceManager {
  const memory = () => 2 ** 40;
  const probes = { totalMemoryBytes: memory, availableMemoryBytes: memory, cores: () => cores };
  return new ResourceManager({ plannedModels, probes });
}

describe('the threads of a model', () => {
  it.each([
    { cores: 8, plannedModels: 1, threads: 8 },
    { cores: 8, plannedModels: 3, threads: 2 },
    { cores: 2, plannedModels: 5, threads: 1 },
    { cores: 4, plannedModels: 0, threads: 4 },
  ])('are $threads of $cores cores for each of $plannedModels planned models', ({ cores, plannedModels, threads }) => {
    expect(managerWith(cores, plannedModels).reserve('a', 0).threads).toBe(threads);
  });

  it('are what it wishes, as far as there are cores left', () => {
    const manager = managerWith(8, 2);
    expect(manager.reserve('a', 0, 6).threads).toBe(6);
    expect(manager.reserve('b', 0).threads).toBe(2);
    expect(manager.reserve('c', 0, 3).threads).toBe(1);
    manager.releaseModel('a');
    expect(manager.reserve('d', { memoryBytes: 0, threads: 99 }).threads).toBe(5);
    expect(manager.getCurrentUsage()).toMatchObject({ cores: 8, reservedThreads: 8 });
  });

  it('are for each of its instances', () => {
    const manager = managerWith(8, 1);
    expect(manager.reserve('a', { memoryBytes: 0, instances: 3 }).threads).toBe(2);
    expect(manager.getCurrentUsage().reservedThreads).toBe(6);
    expect(manager.reserve('a', { memoryBytes: 0, instances: 2, threads: 3 }).threads).toBe(3);
    expect(manager.getCurrentUsage().reservedThreads).toBe(6);
  });

  it('of all models together stay within the cores, as far as each can have one', () => {
    const model = fc.constantFrom('a', 'b', 'c', 'd', 'e');
    const step = fc.record({ model, reserve: fc.boolean(), wish: fc.option(fc.integer({ min: 1, max: 20 })) });
    const cores = fc.integer({ min: 1, max: 16 });
    fc.assert(
      fc.property(cores, fc.nat(6), fc.array(step), (cores, plannedModels, steps) => {
        const manager = managerWith(cores, plannedModels);
        const granted = new Map<string, number>();
        for (const { model, reserve, wish } of steps) {
          manager.releaseModel(model);
          granted.delete(model);
          const before = [...granted.values()].reduce((sum, threads) => sum + threads, 0);
          if (!reserve) continue;
          const share = Math.floor(cores / Math.max(1, plannedModels));
          const { threads } = manager.reserve(model, 0, wish ?? undefined);
          expect(threads).toBe(Math.max(1, Math.min(wish ?? share, cores - before)));
          granted.set(model, threads);
          const reservedThreads = before + threads;
          expect(manager.getCurrentUsage().reservedThreads).toBe(reservedThreads);
          // Only a model that gets the one thread that everybody gets goes beyond the cores.
          if (threads > 1) expect(reservedThreads).toBeLessThanOrEqual(cores);
        }
      }),
    );
  });
});
