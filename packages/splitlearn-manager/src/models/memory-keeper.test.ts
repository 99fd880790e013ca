import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { bringToLife, knownModel, MIB, settle } from '../../test/support/models.js';
import { ManagerError } from '../errors.js';
import { MemoryPressure } from '../resources/memory-pressure.js';
import { machineProbes } from '../resources/probes.js';
import { ResourceManager } from '../resources/resource-manager.js';
import { MemoryKeeper } from './memory-keeper.js';
import type { RegisteredModel } from './registered-model.js';

const LIMIT_MIB = 100;

/** A keeper whose looks happen when a test says so, on a machine that has as much memory left as it says. */
function setUp() {
  const machine = { availableMib: 1_000 };
  const models: RegisteredModel[] = [];
  const works = new Set<() => void>();
  const intervals: number[] = [];
  const logger = { warn: vi.fn(), error: vi.fn() };
  const measure = vi.fn(async (_: RegisteredModel) => {});
  const evicted: string[] = [];
  const evict = vi.fn(async (model: RegisteredModel) => {
    evicted.push(model.modelId);
    model.life = undefined;
    resourceManager.releaseModel(model.modelId);
  });
  const probes = {
    ...machineProbes,
    availableMemoryBytes: () => machine.availableMib * MIB,
    totalMemoryBytes: () => 1_000 * MIB,
    memoryStall: () => undefined,
    cgroupMemory: () => [],
  };
  const resourceManager = new ResourceManager({ memoryLimitBytes: LIMIT_MIB * MIB, probes });
  const keeper = new MemoryKeeper({
    ...{ resourceManager, logger, measure, evict },
    models: () => models,
    pressure: new MemoryPressure({ probes }),
    every: (intervalMs, work) => {
      intervals.push(intervalMs);
      works.add(work);
      return () => works.delete(work);
    },
  });
  /** A loaded model that was asked for so many milliseconds ago, and takes so much. */
  const load = async (modelId: string, mib: number, { idleMs = 0, pinned = false } = {}) => {
    const model = knownModel(modelId, { pinned });
    models.push(model);
    resourceManager.reserve(modelId, { memoryBytes: MIB, threads: 1 });
    await bringToLife(model, mib * MIB);
    resourceManager.recordUse(modelId, mib * MIB);
    model.lastUsedAtMs = Date.now() - idleMs;
    return model;
  };
  const look = async () => {
    for (const work of works) work();
    await settle();
  };
  keeper.start();
  return { keeper, machine, models, works, intervals, logger, measure, evict, evicted, load, look };
}

/** All models that may not be evicted, for one reason each. */
async function loadUntouchable({ models, load }: Pick<ReturnType<typeof setUp>, 'models' | 'load'>): Promise<void> {
  const idleMs = 1_000;
  await load('pinned', 19, { idleMs, pinned: true });
  (await load('used', 19, { idleMs })).life?.tryLease();
  (await load('removed', 19, { idleMs })).removal = new ManagerError('MODEL_DRAINING', 'unloaded');
  (await load('being evicted', 19, { idleMs })).evicting = Promise.resolve();
  (await load('draining', 30, { idleMs })).life?.retire();
  models.push(knownModel('not loaded'));
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('a keeper', () => {
  it('looks once a second from its first start until it is stopped, and can be started again', async () => {
    const { keeper, works, intervals } = setUp();
    keeper.start();
    expect(intervals).toEqual([1_000, 1_000]);
    expect(works.size).toBe(2);
    keeper.stop();
    expect(works.size).toBe(0);
    keeper.start();
    expect(works.size).toBe(2);
  });

  it('measures the models that are ready, and no others', async () => {
    const { load, look, measure, models } = setUp();
    const ready = await load('ready', 10);
    (await load('draining', 10)).life?.retire();
    models.push(knownModel('not loaded'));
    await look();
    expect(measure.mock.calls.map(([model]) => model)).toEqual([ready]);
  });

  it('does not look while it is still looking', async () => {
    const { load, look, measure } = setUp();
    await load('m', 10);
    let measured!: () => void;
    measure.mockImplementationOnce(() => new Promise((resolve) => (measured = resolve)));
    await look();
    await look();
    expect(measure).toHaveBeenCalledTimes(1);
    measured();
    await settle();
    await look();
    expect(measure).toHaveBeenCalledTimes(2);
  });

  it('reports what goes wrong, and goes on', async () => {
    const { load, look, measure, logger } = setUp();
    await load('m', 10);
    measure.mockRejectedValueOnce(new Error('no such process'));
    await look();
    expect(logger.warn.mock.calls).toEqual([['the memory of the models could not be looked at: no such process']]);
    await look();
    expect(measure).toHaveBeenCalledTimes(2);
    expect(logger.warn).toHaveBeenCalledTimes(1);
  });
});

describe('models that have grown beyond their limit', () => {
  it('go one at a time, the one that nobody has asked for the longest first, until they are within it', async () => {
    const { load, look, evicted, logger } = setUp();
    await load('younger', 30, { idleMs: 5 });
    await load('oldest', 30, { idleMs: 9 });
    await load('youngest', 35, { idleMs: 1 });
    await load('used', 40, { idleMs: 99 }).then(({ life }) => life?.tryLease());
    await look();
    expect(evicted).toEqual(['oldest']);
    expect(logger.warn).toHaveBeenCalledWith("model 'oldest' is evicted: the models have grown beyond their limit");
    await look();
    expect(evicted).toEqual(['oldest', 'younger']);
    await look();
    expect(evicted).toHaveLength(2);
  });

  it('stay when they are exactly at it', async () => {
    const { load, look, evict } = setUp();
    await load('m', LIMIT_MIB);
    await look();
    expect(evict).not.toHaveBeenCalled();
  });

  it('stay when they are pinned, in use, on their way out, or not loaded', async () => {
    const all = setUp();
    const lease = (await all.load('idle', 1)).life?.tryLease();
    await loadUntouchable(all);
    await all.look();
    expect(all.evict).not.toHaveBeenCalled();
    lease?.release();
    await all.look();
    expect(all.evicted).toEqual(['idle']);
  });

  it('are looked at again when one of them could not be evicted', async () => {
    const { load, look, evict, logger, evicted } = setUp();
    await load('m', LIMIT_MIB + 1);
    evict.mockRejectedValueOnce(new Error('not now'));
    await look();
    expect(logger.warn).toHaveBeenLastCalledWith("model 'm' could not be evicted: not now");
    await look();
    expect(evicted).toEqual(['m']);
  });
});

describe('a machine that runs out of memory', () => {
  it('has one idle model evicted at once, and the next when that was not enough after 10 seconds', async () => {
    const { load, look, machine, evicted, logger } = setUp();
    await load('younger', 10, { idleMs: 5 });
    await load('older', 10, { idleMs: 9 });
    await look();
    expect(evicted).toEqual([]);
    machine.availableMib = 10;
    await look();
    expect(evicted).toEqual(['older']);
    expect(logger.warn).toHaveBeenCalledWith("model 'older' is evicted: of 1000 MiB of memory 10 MiB are left");
    for (let i = 0; i < 9; i++) await look();
    expect(evicted).toEqual(['older']);
    await look();
    expect(evicted).toEqual(['older', 'younger']);
  });

  it('has none evicted when the pressure is over', async () => {
    const { load, look, machine, evicted } = setUp();
    machine.availableMib = 20;
    await look();
    await load('m', 10);
    machine.availableMib = 1_000;
    await look();
    expect(evicted).toEqual([]);
  });

  it('keeps models that are pinned, in use, on their way out, or not loaded', async () => {
    const all = setUp();
    await loadUntouchable(all);
    all.machine.availableMib = 10;
    await all.look();
    expect(all.evict).not.toHaveBeenCalled();
  });

  it('does not bring the server down when a model could not be evicted', async () => {
    const { load, look, machine, evict, logger } = setUp();
    await load('m', 10);
    machine.availableMib = 10;
    evict.mockRejectedValueOnce(new Error('not now')); // unhandled, it would fail this test run
    await look();
    expect(logger.warn).toHaveBeenLastCalledWith("model 'm' could not be evicted: not now");
  });
});
