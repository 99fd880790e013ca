import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FakeStarts, failure, knownModel, MIB, settle } from '../../test/support/models.js';
import { ManagerError } from '../errors.js';
import type { StartHostAt } from '../hosts/start-host.js';
import { MetricsCollector } from '../monitoring/metrics-collector.js';
import { machineProbes } from '../resources/probes.js';
import { ResourceManager } from '../resources/resource-manager.js';
import type { EvictionRecord } from './admission.js';
import { LifeCycle } from './life-cycle.js';
import type { ModelConfig } from './model-config.js';
import type { RegisteredModel } from './registered-model.js';

const NEVER = new AbortController().signal;
const REMOVAL = new ManagerError('MODEL_DRAINING', 'it is being unloaded');
const DAMAGED = new ManagerError('MODEL_LOAD_FAILED', 'damaged');

/** Models that are thought to take 40 of 100 MiB and turn out to take 30, in hosts that start when a test says so. */
function setUp({ limitMib = 100 } = {}) {
  const models: RegisteredModel[] = [];
  const states: string[] = [];
  const evictions: EvictionRecord[] = [];
  const fakes = new FakeStarts(30 * MIB);
  const startHost = vi.fn<StartHostAt>((_, __, ___, signal) => fakes.begin(signal));
  const logger = { warn: vi.fn(), error: vi.fn() };
  const metrics = new MetricsCollector();
  const recordModelLoad = vi.spyOn(metrics, 'recordModelLoad');
  const resources = new ResourceManager({
    memoryLimitBytes: limitMib * MIB,
    probes: { ...machineProbes, availableMemoryBytes: () => 2 ** 50, cores: () => 8, backends: () => [] },
  });
  const estimateNeed = vi.fn(async () => ({
    memoryBytes: 40 * MIB,
    parts: { weights: 30 * MIB, runtime: 10 * MIB, cache: 0 },
  }));
  const onEviction = vi.fn((record: EvictionRecord) => void evictions.push(record));
  const lifeCycle = new LifeCycle({
    ...{ resourceManager: resources, metrics, maxModels: 16, policy: undefined, maxMessageLength: 5, logger },
    ...{ startHost, estimateNeed, onEviction },
    models: () => models,
    onState: (modelId, state, error) => states.push(`${modelId} ${state}${error ? `: ${error.code}` : ''}`),
  });
  /** Makes a model known whose lives begin as those of a manager do. */
  const know = (modelId = 'm', config: Partial<ModelConfig> = {}) => {
    const model: RegisteredModel = knownModel(modelId, config, (evict, signal) =>
      lifeCycle.bringUp(model, evict, signal),
    );
    models.push(model);
    return model;
  };
  /** Makes a model known, and loads it. */
  const load = async (modelId = 'm', config: Partial<ModelConfig> = {}) => {
    const model = know(modelId, config);
    const first = fakes.all.length;
    const loading = model.load();
    await settle();
    for (const start of fakes.all.slice(first)) start.succeed();
    await loading;
    const life = model.life ?? expect.fail('it is not loaded');
    return { model, life, host: fakes.nth(first).host };
  };
  const begin = (model: RegisteredModel, signal = NEVER) => lifeCycle.bringUp(model, true, signal);
  const reservedMib = () => resources.getCurrentUsage().reservedBytes / MIB;
  return {
    ...{ lifeCycle, resources, models, states, evictions, onEviction, logger, fakes, startHost, recordModelLoad },
    ...{ estimateNeed, know, load, begin, reservedMib, nth: (index: number) => fakes.nth(index) },
  };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('the beginning of a life', () => {
  it('reserves what the model is thought to need, and counts what it turned out to take', async () => {
    const { know, begin, nth, resources, reservedMib, states } = setUp();
    const model = know();
    const beginning = begin(model);
    await settle();
    expect(reservedMib()).toBe(40);
    expect(model.starting).toBeInstanceOf(Promise);
    nth(0).succeed();
    await beginning;
    expect(resources.getReservation('m')?.usedBytes).toBe(30 * MIB);
    expect(model).toMatchObject({ state: 'READY', loads: 1, starting: undefined, failure: undefined });
    expect(states).toEqual(['m LOADING', 'm READY']);
  });

  it('asks for what the configuration says, and for memory of a GPU only where it runs on one', async () => {
    const { know, begin, resources, fakes, estimateNeed } = setUp();
    const findBestDevice = vi.spyOn(resources, 'findBestDevice');
    const reserve = vi.spyOn(resources, 'reserve').mockReturnValue({ memoryBytes: 0, threads: 1 });
    const parts = { weights: 25 * MIB, runtime: 10 * MIB, cache: 5 * MIB };
    estimateNeed.mockResolvedValue({ memoryBytes: 40 * MIB, parts });
    findBestDevice.mockResolvedValueOnce('cuda:0');
    const onGpu = know('gpu', { device: 'cuda:0', instances: 2, threads: 3 });
    const beginning = [begin(onGpu), begin(know('cpu'))];
    await settle();
    for (const start of fakes.all) start.succeed();
    await Promise.all(beginning);
    const need = { memoryBytes: 40 * MIB, growthBytes: 5 * MIB };
    expect(estimateNeed).toHaveBeenCalledWith(onGpu.config, onGpu.located);
    expect(findBestDevice).toHaveBeenCalledWith('cuda:0', { memoryBytes: 40 * MIB });
    expect(reserve.mock.calls).toEqual([
      ['gpu', { ...need, instances: 2, threads: 3, device: 'cuda:0', gpuMemoryBytes: 25 * MIB }],
      ['cpu', { ...need, instances: 1, device: 'cpu' }],
    ]);
  });

  it('starts the model here or elsewhere, by what it has found of it', async () => {
    const { know, begin, startHost, fakes } = setUp();
    const here = know('here');
    here.located = { ...here.located, task: 'fill-mask' };
    const there = know('there', { address: 'gpu-box:50051', source: 'its name there', task: 'its own' });
    const beginning = [begin(here), begin(there)];
    await settle();
    for (const start of fakes.all) start.succeed();
    await Promise.all(beginning);
    expect(startHost.mock.calls.map(([place, { task }]) => [place, task])).toEqual([
      ['thread', 'fill-mask'],
      [{ address: 'gpu-box:50051', source: 'its name there' }, 'its own'],
    ]);
  });

  it('leaves nothing behind when it fails, but why', async () => {
    const { know, begin, nth, reservedMib, fakes } = setUp();
    const model = know('m', { instances: 2, keepAliveMs: 10 });
    const beginning = failure(begin(model));
    await settle();
    nth(0).succeed();
    nth(1).fail(DAMAGED);
    expect(await beginning).toBe(DAMAGED);
    expect(model).toMatchObject({ state: 'FAILED', failure: DAMAGED, loads: 0, life: undefined, starting: undefined });
    expect(reservedMib()).toBe(0);
    expect(fakes.all.filter(({ host, settled }) => !settled || host.stops === 0)).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
    model.failure = undefined;
    const again = begin(model);
    await settle();
    nth(2).fail(new TypeError('not foreseen'));
    nth(3).succeed();
    await expect(again).rejects.toThrow('not foreseen');
    expect(model.failure).toBe(undefined);
  });

  it('leaves nothing behind when its hosts cannot be measured', async () => {
    const { know, begin, nth, reservedMib } = setUp();
    const model = know();
    const beginning = begin(model);
    beginning.catch(() => {});
    await settle();
    vi.spyOn(nth(0).host, 'memoryBytes').mockRejectedValueOnce(new Error('no such process'));
    nth(0).succeed();
    await expect(beginning).rejects.toThrow('no such process');
    expect(nth(0).host.stops).toBe(1);
    expect(model.life).toBe(undefined);
    expect(reservedMib()).toBe(0);
  });

  it('forgets an earlier failure when it succeeds', async () => {
    const { know, begin, nth } = setUp();
    const model = know();
    model.failure = DAMAGED;
    const beginning = begin(model);
    await settle();
    nth(0).succeed();
    await beginning;
    expect(model.failure).toBe(undefined);
  });

  it('is measured, how long each start took and whether it succeeded', async () => {
    const { know, begin, nth, recordModelLoad } = setUp();
    const model = know();
    const beginning = [failure(begin(model))];
    await vi.advanceTimersByTimeAsync(1_500);
    nth(0).fail(DAMAGED);
    await beginning[0];
    const again = begin(model);
    await vi.advanceTimersByTimeAsync(500);
    nth(1).succeed();
    await again;
    expect(recordModelLoad.mock.calls).toEqual([
      ['m', 1.5, false],
      ['m', 0.5, true],
    ]);
  });

  it('starts nothing when the model was removed while it waited for room', async () => {
    const { know, begin, fakes, reservedMib, load } = setUp({ limitMib: 90 });
    const { life } = await load('used');
    const lease = life.tryLease();
    await load('kept', { pinned: true });
    const model = know();
    const beginning = failure(begin(model));
    await settle();
    model.removal = REMOVAL;
    lease?.release();
    expect(await beginning).toBe(REMOVAL);
    expect(fakes.all).toHaveLength(2);
    expect(model).toMatchObject({ life: undefined, starting: undefined });
    expect(reservedMib()).toBe(30);
  });

  it('gives up its start when the model is removed meanwhile, and its room', async () => {
    const { know, begin, fakes, nth, reservedMib, lifeCycle } = setUp();
    fakes.heedsSignal = true;
    const model = know();
    const beginning = failure(begin(model));
    await settle();
    model.removal = REMOVAL;
    await Promise.all(model.lives.map((life) => lifeCycle.end(life, 0)));
    expect((await beginning).code).toBe('MODEL_DRAINING');
    expect(nth(0).signal.aborted).toBe(true);
    expect(reservedMib()).toBe(0);
  });

  it('is shared where a reload waits for room while the model is evicted, and a request comes for it', async () => {
    const { load, lifeCycle, begin, nth, fakes, reservedMib } = setUp({ limitMib: 90 });
    const { model, life } = await load();
    const { life: used } = await load('used');
    const lease = used.tryLease();
    const reloading = lifeCycle.replace(model, 0);
    await settle();
    await lifeCycle.end(life, 0);
    model.life = undefined;
    const acquiring = begin(model);
    await settle();
    lease?.release();
    await settle();
    expect(fakes.all).toHaveLength(3);
    nth(2).succeed();
    await Promise.all([reloading, acquiring]);
    expect(fakes.all).toHaveLength(3);
    expect(model.lives.map(({ reservationId }) => reservationId)).toEqual(['m (next)']);
    expect(reservedMib()).toBe(30);
  });

  it('is one where two ask for it at once', async () => {
    const { know, begin, nth, fakes, resources } = setUp();
    const model = know();
    const beginning = [begin(model), begin(model)];
    await settle();
    nth(0).succeed();
    await Promise.all(beginning);
    expect(fakes.all).toHaveLength(1);
    expect(resources.getReservation('m')).toBeDefined();
  });

  it('tells of crashes', async () => {
    const { load, logger, states } = setUp();
    const { host, model } = await load();
    host.crash('out of ideas');
    await settle();
    expect(logger.warn.mock.calls).toEqual([['out of ideas']]);
    expect(states).toEqual(['m LOADING', 'm READY', 'm LOADING: MODEL_CRASHED']);
    expect(model.failure).toMatchObject({ code: 'MODEL_CRASHED' });
  });
});

describe('a replacement', () => {
  it('is told of when it is ready, and not before, nor when the one that it replaced ends', async () => {
    const { load, lifeCycle, nth, states, resources } = setUp();
    const { model, life } = await load();
    const lease = life.tryLease();
    const replacing = lifeCycle.replace(model, 1_000);
    await settle();
    expect(model.life).toBe(life);
    expect(model.next).toBeDefined();
    nth(1).succeed();
    await settle();
    expect(model.life).not.toBe(life);
    expect(model).toMatchObject({ next: undefined, previous: life, loads: 2 });
    lease?.release();
    await replacing;
    expect(model.previous).toBe(undefined);
    expect(states).toEqual(['m LOADING', 'm READY', 'm READY']);
    expect(resources.getReservation('m')).toBe(undefined);
    expect(resources.getReservation('m (next)')).toBeDefined();
  });

  it('that fails leaves the model as it was', async () => {
    const { load, lifeCycle, nth, states, reservedMib } = setUp();
    const { model, life } = await load();
    const replacing = failure(lifeCycle.replace(model, 1_000));
    await settle();
    nth(1).fail(DAMAGED);
    expect(await replacing).toBe(DAMAGED);
    expect(model).toMatchObject({ life, next: undefined, previous: undefined, state: 'READY', failure: DAMAGED });
    expect(states).toEqual(['m LOADING', 'm READY']);
    expect(reservedMib()).toBe(30);
  });

  it('keeps no life that has failed to end', async () => {
    const { load, lifeCycle, nth, resources } = setUp();
    const { model, host } = await load();
    host.stop = () => Promise.reject(new Error('dispose failed'));
    const replacing = lifeCycle.replace(model, 0);
    replacing.catch(() => {});
    await settle();
    nth(1).succeed();
    await expect(replacing).rejects.toThrow('dispose failed');
    expect(model).toMatchObject({ previous: undefined, state: 'READY' });
    expect(resources.getReservation('m')).toBe(undefined);
  });

  it('waits for an eviction, and then is a load', async () => {
    const { load, lifeCycle, nth } = setUp();
    const { model, life } = await load();
    const lease = life.tryLease();
    const evicting = lifeCycle.evict(model, 'memory');
    const replacing = lifeCycle.replace(model, 0);
    await settle();
    lease?.release();
    await evicting;
    await settle();
    nth(1).succeed();
    await replacing;
    expect(model.life?.reservationId).toBe('m');
  });

  it('does not begin when the model was removed while it waited', async () => {
    const { load, lifeCycle, fakes, evictions } = setUp({ limitMib: 75 });
    await load('idle');
    const { model, life } = await load();
    const lease = life.tryLease();
    const evicting = lifeCycle.evict(model, 'memory');
    const replacing = failure(lifeCycle.replace(model, 0));
    await settle();
    model.removal = REMOVAL;
    lease?.release();
    expect(await replacing).toBe(REMOVAL);
    await evicting;
    expect(fakes.all).toHaveLength(2);
    expect(evictions).toEqual([]);
  });
});

describe('the end of a life', () => {
  it('gives back what it had, and never what another life has by then', async () => {
    const { load, lifeCycle, resources, reservedMib } = setUp();
    const { life } = await load();
    expect(await lifeCycle.end(life, 0)).toEqual({ interrupted: 0, reclaimedBytes: 30 * MIB });
    expect(reservedMib()).toBe(0);
    resources.reserve('m', 50 * MIB);
    await lifeCycle.end(life, 0);
    expect(reservedMib()).toBe(50);
    await lifeCycle.measure(life);
    expect(resources.getReservation('m')).not.toHaveProperty('usedBytes');
  });

  it('gives it back even when a host fails to end', async () => {
    const { load, lifeCycle, reservedMib } = setUp();
    const { life, host } = await load();
    host.stop = () => Promise.reject(new Error('dispose failed'));
    await expect(lifeCycle.end(life, 0)).rejects.toThrow('dispose failed');
    expect(reservedMib()).toBe(0);
  });
});

describe('an eviction', () => {
  it('is recorded with what it was for, and joined by whoever wants it as well', async () => {
    const { load, lifeCycle, evictions, reservedMib } = setUp();
    const { model } = await load();
    await vi.advanceTimersByTimeAsync(70);
    const evicting = lifeCycle.evict(model, 'memory', { forModelId: 'new' });
    expect(model.evicting).toBeDefined();
    await Promise.all([evicting, lifeCycle.evict(model, 'pressure')]);
    const record = { modelId: 'm', reason: 'memory', forModelId: 'new', idleMs: 70, reclaimedBytes: 30 * MIB };
    expect(evictions).toEqual([{ ...record, atMs: Date.now() }]);
    expect(model).toMatchObject({ state: 'UNLOADED', life: undefined, evicting: undefined });
    expect(reservedMib()).toBe(0);
  });

  it('of a model that is not loaded is none', async () => {
    const { know, lifeCycle, evictions } = setUp();
    await lifeCycle.evict(know(), 'memory');
    expect(evictions).toEqual([]);
  });

  it('waits until the model has begun, as long as it is wanted', async () => {
    const { know, begin, lifeCycle, nth, evictions } = setUp();
    const model = know();
    const beginning = begin(model);
    await settle();
    const controller = new AbortController();
    const evicting = failure(lifeCycle.evict(model, 'memory', { signal: controller.signal }));
    await settle();
    controller.abort(REMOVAL);
    expect(await evicting).toBe(REMOVAL);
    expect(model.life?.state).toBe('LOADING');
    const again = lifeCycle.evict(model, 'memory');
    nth(0).succeed();
    await Promise.all([beginning, again]);
    expect(model.life).toBe(undefined);
    expect(evictions).toHaveLength(1);
  });

  it('that is given up leaves the model to those who wait for it, and only who wanted it is told', async () => {
    const { load, lifeCycle, evictions } = setUp();
    const { model, life } = await load();
    const lease = life.tryLease();
    const controller = new AbortController();
    const evicting = failure(lifeCycle.evict(model, 'memory', { signal: controller.signal }));
    const over = model.evicting;
    const acquiring = model.acquire();
    await settle();
    expect(model).toMatchObject({ state: 'DRAINING', busy: true });
    expect(life.tryLease()).toBe(undefined);
    controller.abort(REMOVAL);
    expect(await evicting).toBe(REMOVAL);
    await over;
    (await acquiring).release();
    lease?.release();
    expect(model).toMatchObject({ state: 'READY', life, evicting: undefined });
    expect(evictions).toEqual([]);
  });

  it('waits for the life that was replaced, whether or not it ends well', async () => {
    const { load, lifeCycle, nth, evictions } = setUp();
    const { model, life, host } = await load();
    host.stop = () => Promise.reject(new Error('dispose failed'));
    const lease = life.tryLease();
    const replacing = lifeCycle.replace(model, 1_000);
    await settle();
    nth(1).succeed();
    await settle();
    let evicted = false;
    const evicting = lifeCycle.evict(model, 'memory').then(() => (evicted = true));
    replacing.catch(() => {});
    await settle();
    expect(evicted).toBe(false);
    lease?.release();
    await evicting;
    await expect(replacing).rejects.toThrow('dispose failed');
    expect(model.life).toBe(undefined);
    expect(evictions).toHaveLength(1);
  });

  it('of a model that is being unloaded only waits for that, as long as it is wanted', async () => {
    const { load, lifeCycle, evictions } = setUp();
    const { model, life } = await load();
    model.removal = REMOVAL;
    let removed!: () => void;
    model.removed = new Promise((resolve) => (removed = resolve));
    const controller = new AbortController();
    const givenUp = failure(lifeCycle.evict(model, 'memory', { signal: controller.signal }));
    controller.abort(REMOVAL);
    expect(await givenUp).toBe(REMOVAL);
    let evicted = false;
    const evicting = lifeCycle.evict(model, 'memory').then(() => (evicted = true));
    await settle();
    expect(evicted).toBe(false);
    expect(life.state).toBe('READY');
    removed();
    await evicting;
    expect(evictions).toEqual([]);
  });

  it('leaves the end to whoever removes the model while it waits', async () => {
    const { load, lifeCycle, evictions } = setUp();
    const { model, life, host } = await load();
    const lease = life.tryLease();
    const evicting = lifeCycle.evict(model, 'memory');
    model.removal = REMOVAL;
    lease?.release();
    await evicting;
    expect(host.stops).toBe(0);
    expect(evictions).toEqual([]);
  });

  it('of a model whose host fails to end is one all the same', async () => {
    const { load, lifeCycle, evictions, logger, reservedMib } = setUp();
    const { model, host } = await load();
    host.stop = () => Promise.reject(new Error('dispose failed'));
    await lifeCycle.evict(model, 'memory');
    expect(evictions).toMatchObject([{ modelId: 'm', reclaimedBytes: 0 }]);
    expect(logger.warn.mock.calls).toEqual([["model 'm' failed to end: dispose failed"]]);
    expect(model.life).toBe(undefined);
    expect(reservedMib()).toBe(0);
  });
});

describe('an idle model', () => {
  it('goes when it has been idle for as long as it may be, counted anew whenever it becomes idle', async () => {
    const { load, evictions } = setUp();
    const { life } = await load('m', { keepAliveMs: 100 });
    await vi.advanceTimersByTimeAsync(99);
    life.tryLease()?.release();
    await vi.advanceTimersByTimeAsync(99);
    expect(evictions).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(evictions).toMatchObject([{ modelId: 'm', reason: 'idle' }]);
    expect(evictions[0]).not.toHaveProperty('forModelId');
  });

  it('stays as long as the longest timer that there is, where that is not as long as it may be', async () => {
    const { load, evictions } = setUp();
    await load('m', { keepAliveMs: Number.MAX_SAFE_INTEGER });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(evictions).toEqual([]);
  });

  it('stays when it is pinned, not to go for that, not loaded or being unloaded', async () => {
    const { load, know, lifeCycle, evictions } = setUp({ limitMib: 1_000 });
    await load('pinned', { keepAliveMs: 0, pinned: true });
    await load('kept');
    lifeCycle.idle(know('not loaded', { keepAliveMs: 0 }));
    expect(vi.getTimerCount()).toBe(0);
    const { model } = await load('removed', { keepAliveMs: 10 });
    expect(vi.getTimerCount()).toBe(1);
    model.removal = REMOVAL;
    lifeCycle.idle(model);
    expect(vi.getTimerCount()).toBe(0);
    expect(evictions).toEqual([]);
  });

  it('stays when it is used, or was removed, at the moment at which it would go', async () => {
    const { load, evictions } = setUp();
    const used = await load('used', { keepAliveMs: 10 });
    used.life.tryLease();
    const removed = await load('removed', { keepAliveMs: 10 });
    removed.model.removal = REMOVAL;
    await vi.advanceTimersByTimeAsync(10);
    expect([used.life.state, removed.life.state]).toEqual(['READY', 'READY']);
    expect(evictions).toEqual([]);
  });

  it('that fails to go is reported', async () => {
    const { load, logger, onEviction } = setUp();
    await load('m', { keepAliveMs: 10 });
    onEviction.mockImplementationOnce(() => {
      throw new Error('what a listener');
    });
    await vi.advanceTimersByTimeAsync(10);
    expect(logger.warn.mock.calls).toEqual([['what a listener']]);
  });
});
