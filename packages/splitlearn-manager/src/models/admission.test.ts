import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { bringToLife, failure, knownModel, MIB, settle } from '../../test/support/models.js';
import { abortable } from '../abortable.js';
import { ManagerError } from '../errors.js';
import { machineProbes } from '../resources/probes.js';
import { ResourceManager } from '../resources/resource-manager.js';
import { Admission, type EvictionReason } from './admission.js';
import type { EvictionPolicy } from './eviction.js';
import type { RegisteredModel } from './registered-model.js';

const NEVER = new AbortController().signal;

interface Settings {
  readonly limitMib?: number;
  readonly availableMib?: number;
  readonly maxModels?: number;
  readonly policy?: EvictionPolicy;
}

/** Models that take what a test says, and an admission that evicts them as the manager does. */
function setUp({ limitMib = 100, availableMib = 10_000, maxModels = 16, policy }: Settings = {}) {
  const models = new Map<string, RegisteredModel>();
  const evicted: { modelId: string; reason: EvictionReason; forModelId: string }[] = [];
  const machine = { availableMib };
  const resources = new ResourceManager({
    memoryLimitBytes: limitMib * MIB,
    probes: { ...machineProbes, availableMemoryBytes: () => machine.availableMib * MIB, cores: () => 8 },
  });
  const admission = new Admission({
    resourceManager: resources,
    maxModels,
    ...(policy && { policy }),
    models: () => models.values(),
    evict: async (model, reason, forModelId, signal) => {
      if (model.removed) return model.removed;
      await model.starting;
      const { life } = model;
      life?.retire();
      try {
        await abortable(Promise.resolve(life?.whenIdle()), signal);
      } catch (error) {
        life?.resume();
        throw error;
      }
      await life?.unload(0);
      model.life = undefined;
      resources.releaseModel(model.modelId);
      evicted.push({ modelId: model.modelId, reason, forModelId });
    },
  });
  /** Makes a model known. */
  const know = (modelId: string, config: { pinned?: boolean } = {}) => {
    const model = knownModel(modelId, config);
    models.set(modelId, model);
    return model;
  };
  /** Begins a model's life, in memory that has been reserved for it. */
  const live = async (model: RegisteredModel, mib: number) => {
    await bringToLife(model, mib * MIB);
    resources.recordUse(model.modelId, mib * MIB);
    return model;
  };
  /** A model that has been loaded, and not been asked for since so many milliseconds. */
  const load = async (modelId: string, mib: number, { idleMs = 0, pinned = false, busy = false } = {}) => {
    const model = know(modelId, { pinned });
    model.lastUsedAtMs = Date.now() - idleMs;
    resources.reserve(modelId, mib * MIB, 1);
    await live(model, mib);
    const lease = busy ? model.life?.tryLease() : undefined;
    return { model, lease };
  };
  const admit = (model: RegisteredModel, mib: number, { evict = true, signal = NEVER } = {}) =>
    admission.admit(model, model.modelId, { memoryBytes: mib * MIB, threads: 3 }, evict, signal);
  const plan = (modelId: string, mib: number) => admission.plan(modelId, mib * MIB);
  return { admission, resources, machine, evicted, know, live, load, admit, plan };
}

function ids(models: readonly { readonly modelId: string }[]): string[] {
  return models.map(({ modelId }) => modelId);
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('a plan', () => {
  it('says with all numbers that a model fits', async () => {
    const { load, plan, evicted } = setUp({ maxModels: 5, availableMib: 70 });
    await load('a', 30);
    expect(plan('new', 70)).toEqual({
      modelId: 'new',
      fits: true,
      reason:
        'it fits: it needs about 70 MiB; of the 100 MiB that models may take 30 MiB are taken, the machine has ' +
        '70 MiB left, and 1 of at most 5 models are loaded',
      memoryBytes: 70 * MIB,
      memoryLimitBytes: 100 * MIB,
      countedBytes: 30 * MIB,
      availableBytes: 70 * MIB,
      shortBytes: 0,
      loadedModels: 1,
      maxModels: 5,
      evictions: [],
    });
    expect(evicted).toEqual([]);
  });

  it('says which models would go, and which of them are busy', async () => {
    const { load, plan, evicted } = setUp();
    await load('idle', 30, { idleMs: 5 });
    await load('used', 60, { busy: true, idleMs: 9 });
    const one = plan('new', 40);
    expect(one).toMatchObject({ fits: true, shortBytes: 30 * MIB });
    expect(one.evictions).toEqual([{ modelId: 'idle', memoryBytes: 30 * MIB, idleMs: 5, busy: false }]);
    expect(one.reason).toMatch(/^it fits when 'idle' goes: it needs about 40 MiB; of the 100 MiB .* 90 MiB are taken/);
    const both = plan('new', 100);
    expect(ids(both.evictions)).toEqual(['idle', 'used']);
    expect(both.reason).toMatch(/^it fits when 'idle', 'used' \(busy\) go: /);
    expect(evicted).toEqual([]);
  });

  it('says that a model does not fit, and never counts on those that are pinned', async () => {
    const { load, plan } = setUp();
    await load('kept', 60, { pinned: true, idleMs: 1_000 });
    await load('idle', 20);
    expect(plan('new', 40)).toMatchObject({ fits: true, evictions: [{ modelId: 'idle' }] });
    const tooLarge = plan('new', 41);
    expect(tooLarge).toMatchObject({ fits: false, evictions: [], shortBytes: 21 * MIB });
    expect(tooLarge.reason).toMatch(/^it does not fit, even without all models that may go: it needs about 41 MiB; /);
  });

  it('counts what is short of what the machine has left, when that is less than the limit leaves', async () => {
    const { load, plan, machine } = setUp();
    await load('a', 20);
    machine.availableMib = 10;
    expect(plan('new', 10).evictions).toEqual([]);
    expect(plan('new', 11)).toMatchObject({ fits: true, shortBytes: MIB, evictions: [{ modelId: 'a' }] });
    expect(plan('new', 31)).toMatchObject({ fits: false, shortBytes: 21 * MIB });
  });

  it('counts what models that are being loaded have not taken yet', async () => {
    const { load, know, admit, plan, resources } = setUp({ limitMib: 1_000, availableMib: 100 });
    await load('idle', 50);
    resources.reserve('being loaded', 60 * MIB);
    expect(plan('new', 40)).toMatchObject({ fits: true, shortBytes: 0, availableBytes: 100 * MIB });
    expect(plan('new', 70)).toMatchObject({ fits: true, shortBytes: 30 * MIB, evictions: [{ modelId: 'idle' }] });
    expect(plan('new', 91)).toMatchObject({ fits: false, shortBytes: 51 * MIB });
    const message = (await failure(admit(know('new'), 91))).message;
    expect(message).toContain("model 'new' cannot be loaded: it does not fit");
  });

  it('makes room among the models where there are as many as there may be', async () => {
    const { load, know, plan, evicted, admit } = setUp({ maxModels: 2 });
    await load('old', 1, { idleMs: 9 });
    await load('older', 1, { idleMs: 10 });
    expect(plan('new', 1)).toMatchObject({ fits: true, shortBytes: 0, loadedModels: 2, maxModels: 2 });
    await admit(know('new'), 1);
    expect(evicted).toEqual([{ modelId: 'older', reason: 'max-models', forModelId: 'new' }]);
  });

  it('does not count models that are known but not loaded, nor the model itself', async () => {
    const { load, know, admission, plan } = setUp({ maxModels: 1 });
    know('known');
    expect(plan('new', 1)).toMatchObject({ fits: true, loadedModels: 0, evictions: [] });
    const { model } = await load('a', 60);
    expect(plan('new', 1).loadedModels).toBe(1);
    // A reload: there will be two of it, for a while.
    expect(admission.plan('a', 40 * MIB, model)).toMatchObject({ fits: true, loadedModels: 0, evictions: [] });
    expect(admission.plan('a', 41 * MIB, model)).toMatchObject({ fits: false, shortBytes: MIB });
  });

  it('waits for models that are being unloaded before it evicts others', async () => {
    const { load, plan } = setUp();
    await load('idle', 50, { idleMs: 99 });
    const { model } = await load('leaving', 50);
    model.removal = new ManagerError('MODEL_DRAINING', 'unloaded');
    expect(ids(plan('new', 50).evictions)).toEqual(['leaving']);
    expect(ids(plan('new', 51).evictions)).toEqual(['leaving', 'idle']);
    expect(plan('new', 101).fits).toBe(false);
  });

  it('is not held up by models that are being unloaded when it fits without that', async () => {
    const { load, plan } = setUp();
    const { model } = await load('leaving', 50);
    model.removal = new ManagerError('MODEL_DRAINING', 'unloaded');
    expect(plan('new', 50)).toMatchObject({ fits: true, evictions: [] });
  });

  it('counts models that are being unloaded as places that become free', async () => {
    const { load, plan } = setUp({ maxModels: 2 });
    await load('idle', 1, { idleMs: 99 });
    const { model } = await load('leaving', 1);
    model.removal = new ManagerError('MODEL_DRAINING', 'unloaded');
    expect(ids(plan('new', 1).evictions)).toEqual(['leaving']);
  });

  it("follows a policy of one's own", async () => {
    const policy: EvictionPolicy = (all) => all.filter(({ modelId }) => modelId !== 'never');
    const { load, plan } = setUp({ policy });
    await load('never', 50, { idleMs: 99 });
    await load('ever', 50);
    expect(ids(plan('new', 50).evictions)).toEqual(['ever']);
    expect(plan('new', 51).fits).toBe(false);
  });
});

describe('an admission', () => {
  const resident = fc.record({
    mib: fc.integer({ min: 1, max: 40 }),
    idleMs: fc.nat(5),
    pinned: fc.boolean(),
  });

  it('does what the plan says: the same models go, none that is pinned, and what is asked for is reserved', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(resident, { maxLength: 5 }),
        fc.integer({ min: 1, max: 120 }),
        fc.integer({ min: 1, max: 6 }),
        fc.boolean(),
        async (residents, mib, maxModels, evict) => {
          const { load, know, plan, admit, evicted, resources } = setUp({ maxModels });
          const pinned = new Set<string>();
          for (const [index, { mib, ...settings }] of residents.entries()) {
            // What is there was let in by someone else, and may be more than there may be.
            if (resources.shortfall(mib * MIB) > 0) continue;
            await load(String(index), mib, settings);
            if (settings.pinned) pinned.add(String(index));
          }
          const before = resources.getCurrentUsage().reservedBytes;
          const planned = plan('new', mib);
          expect(plan('new', mib)).toEqual(planned);
          expect(resources.getCurrentUsage().reservedBytes).toBe(before);
          expect(evicted).toEqual([]);
          const admitted = await admit(know('new'), mib, { evict }).catch((error: ManagerError) => error);
          if (!planned.fits || (!evict && planned.evictions.length > 0)) {
            expect(admitted).toBeInstanceOf(ManagerError);
            const { code, message } = admitted as ManagerError;
            expect(code).toBe(planned.shortBytes > 0 ? 'INSUFFICIENT_MEMORY' : 'TOO_MANY_MODELS');
            expect(message).toContain(planned.reason);
            expect(evicted).toEqual([]);
            expect(resources.getCurrentUsage().reservedBytes).toBe(before);
            return;
          }
          expect(admitted).toMatchObject({ memoryBytes: mib * MIB, threads: 3 });
          expect(new Set(ids(evicted))).toEqual(new Set(ids(planned.evictions)));
          expect(ids(evicted).filter((modelId) => pinned.has(modelId))).toEqual([]);
          for (const { reason } of evicted) expect(reason).toBe(planned.shortBytes > 0 ? 'memory' : 'max-models');
          const gone = planned.evictions.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
          expect(resources.getCurrentUsage().reservedBytes).toBe(before - gone + mib * MIB);
        },
      ),
      { numRuns: 300 },
    );
  });

  it('is refused with all numbers and what to do', async () => {
    const { load, know, admit } = setUp();
    await load('kept', 60, { pinned: true });
    const { message } = await failure(admit(know('new'), 50));
    expect(message).toBe(
      "model 'new' cannot be loaded: it does not fit, even without all models that may go: it needs about 50 MiB; of the " +
        '100 MiB that models may take 60 MiB are taken, the machine has 10000 MiB left, and 1 of at most 16 models are ' +
        'loaded; unload or unpin a model, or raise memoryLimitBytes or maxMemoryPercent',
    );
  });

  it('is refused where there are too many models that are pinned', async () => {
    const { load, know, admit } = setUp({ maxModels: 1 });
    await load('kept', 1, { pinned: true });
    const error = await failure(admit(know('new'), 1));
    expect(error.code).toBe('TOO_MANY_MODELS');
    expect(error.message).toMatch(/1 of at most 1 models are loaded; unload or unpin a model, or raise maxModels$/);
  });

  it('waits for a busy model to become idle', async () => {
    const { load, know, admit, evicted } = setUp();
    const { lease } = await load('used', 60, { busy: true });
    let admitted = false;
    const admitting = admit(know('new'), 50).then(() => (admitted = true));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(admitted).toBe(false);
    lease?.release();
    await admitting;
    expect(evicted).toEqual([{ modelId: 'used', reason: 'memory', forModelId: 'new' }]);
  });

  it('is over when it is given up, and the busy model that it waited for goes on', async () => {
    const { load, know, admit, evicted, resources } = setUp();
    const { model, lease } = await load('used', 60, { busy: true });
    const controller = new AbortController();
    const reason = new ManagerError('SHUT_DOWN', 'the caller is gone');
    const admitting = failure(admit(know('new'), 50, { signal: controller.signal }));
    await settle();
    expect(model.state).toBe('DRAINING');
    controller.abort(reason);
    expect(await admitting).toBe(reason);
    expect(model.state).toBe('READY');
    model.life?.tryLease()?.release();
    lease?.release();
    expect(evicted).toEqual([]);
    expect(resources.getCurrentUsage().reservedBytes).toBe(60 * MIB);
    // And the next one has its turn.
    await admit(know('next'), 50);
    expect(ids(evicted)).toEqual(['used']);
  });

  it('does not begin when it was given up before its turn', async () => {
    const { load, know, admit, evicted, resources } = setUp();
    await load('idle', 60);
    const error = new ManagerError('SHUT_DOWN', 'the caller is gone');
    expect(await failure(admit(know('new'), 50, { signal: AbortSignal.abort(error) }))).toBe(error);
    expect(evicted).toEqual([]);
    expect(resources.getReservation('new')).toBe(undefined);
  });

  it('comes after all that were asked for before, even if it would fit at once', async () => {
    const { load, know, admit, live } = setUp();
    const { lease } = await load('used', 60, { busy: true });
    const order: string[] = [];
    const admitting = [
      admit(know('large'), 70).then(() => order.push('large')),
      failure(admit(know('never'), 101)).then(() => order.push('never')),
      admit(know('small'), 10).then(() => order.push('small')),
    ];
    await vi.advanceTimersByTimeAsync(60_000);
    expect(order).toEqual([]);
    lease?.release();
    await Promise.all(admitting);
    expect(order).toEqual(['large', 'never', 'small']);
    await live(know('large'), 70);
  });

  it('waits for models that are being loaded, which may take less than was thought, before it evicts or is refused', async () => {
    const { load, know, admit, evicted, resources } = setUp();
    await load('idle', 30);
    const other = know('being loaded');
    resources.reserve('being loaded', 60 * MIB);
    let started!: () => void;
    other.starting = new Promise((resolve) => (started = resolve));
    const admitting = [admit(know('new'), 20), failure(admit(know('never'), 90))];
    await settle();
    expect(evicted).toEqual([]);
    expect(resources.getReservation('new')).toBe(undefined);
    resources.recordUse('being loaded', 50 * MIB);
    other.starting = undefined;
    started();
    expect(await admitting[0]).toMatchObject({ memoryBytes: 20 * MIB });
    expect(await admitting[1]).toMatchObject({ code: 'INSUFFICIENT_MEMORY' });
    expect(evicted).toEqual([]);
  });

  it('does not wait for models that are being loaded when it never fits, or is given up', async () => {
    const { know, admit } = setUp();
    const other = know('being loaded');
    other.starting = new Promise(() => {});
    expect((await failure(admit(know('new'), 101))).code).toBe('INSUFFICIENT_MEMORY');
    await admit(know('small'), 60);
    const controller = new AbortController();
    const admitting = failure(admit(know('large'), 60, { signal: controller.signal }));
    await settle();
    controller.abort(new ManagerError('SHUT_DOWN', 'the caller is gone'));
    expect((await admitting).code).toBe('SHUT_DOWN');
  });

  it('looks again after it has evicted, and evicts more where that was not enough', async () => {
    const { load, know, admit, evicted, machine } = setUp({ limitMib: 1_000 });
    await load('a', 20, { idleMs: 9 });
    const { lease } = await load('b', 20, { idleMs: 1, busy: true });
    machine.availableMib = 10;
    // The first one gives the machine nothing back.
    const admitting = admit(know('new'), 30);
    await settle();
    expect(ids(evicted)).toEqual(['a']);
    machine.availableMib = 30;
    lease?.release();
    await admitting;
    expect(ids(evicted)).toEqual(['a', 'b']);
  });

  it('never lets in more than there may be, however many ask at once', async () => {
    const asked = fc.array(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.boolean()), { minLength: 1, maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(asked, fc.integer({ min: 1, max: 4 }), async (models, maxModels) => {
        const { know, live, admit, resources, admission } = setUp({ maxModels });
        let alive = 0;
        const admitting = models.map(async ([mib, pinned], index) => {
          const model = know(String(index), { pinned });
          await admit(model, mib).then(
            async () => {
              await live(model, mib);
              alive++;
            },
            (error: ManagerError) => expect(['INSUFFICIENT_MEMORY', 'TOO_MANY_MODELS']).toContain(error.code),
          );
          expect(resources.getCurrentUsage().reservedBytes).toBeLessThanOrEqual(100 * MIB);
          expect(admission.plan('new', 0).loadedModels).toBeLessThanOrEqual(maxModels);
        });
        await Promise.all(admitting);
        expect(alive).toBeGreaterThan(0);
      }),
      { numRuns: 200 },
    );
  });
});
