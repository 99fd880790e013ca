import type { ComputeFunction } from '@splitlearn/comm';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type FakeHost, type FakeStart, FakeStarts, failure, settle } from '../../test/support/models.js';
import { ManagerError } from '../errors.js';
import type { ModelLease } from './lease.js';
import { ManagedModel } from './managed-model.js';

const MINUTE_MS = 60_000;
const COOL_DOWN_MS = 5 * MINUTE_MS;

/** A model whose hosts start when a test says so. */
function setUp({ instances = 1, heedsSignal = false } = {}) {
  const fakes = new FakeStarts(1000);
  fakes.heedsSignal = heedsSignal;
  const starts = fakes.all;
  const crashes: ManagerError[] = [];
  const states: string[] = [];
  const onIdle = vi.fn();
  const onState = vi.fn();
  const model = new ManagedModel({
    modelId: 'm',
    instances,
    reservationId: 'm (next)',
    threads: 3,
    memoryBytes: 77,
    startHost: (signal) => fakes.begin(signal),
    onCrash: (error) => crashes.push(error),
    onState: (state, error) => {
      states.push(error ? `${state}: ${error.code}` : state);
      onState(state);
    },
    onIdle,
  });
  return { model, starts, crashes, states, onIdle, onState, nthStart: (index: number) => fakes.nth(index) };
}

/** A model that is ready, and its first host. */
async function setUpReady(options: { instances?: number; heedsSignal?: boolean } = {}) {
  const all = setUp(options);
  const loading = all.model.load();
  for (const start of all.starts) start.succeed();
  await loading;
  return { ...all, host: all.nthStart(0).host };
}

function lease(model: ManagedModel): ModelLease {
  return model.tryLease() ?? expect.fail('there is no lease to be had');
}

/** Ends the newest host, and waits until the next start has begun, which takes that long. */
async function crashAndRestart({ starts }: { starts: FakeStart[] }, delayMs: number): Promise<void> {
  const before = starts.length;
  const newest = starts.at(-1);
  if (!newest?.settled) newest?.succeed();
  await vi.advanceTimersByTimeAsync(1);
  newest?.host.crash(`ended for the ${before}th time`);
  await settle();
  if (delayMs > 0) {
    await vi.advanceTimersByTimeAsync(delayMs - 1);
    expect(starts, `not before ${delayMs} ms`).toHaveLength(before);
    await vi.advanceTimersByTimeAsync(1);
  }
  expect(starts, `after ${delayMs} ms`).toHaveLength(before + 1);
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('loading', () => {
  it('is one start however many ask for it', async () => {
    const { model, starts, states, nthStart } = setUp();
    const loads = Array.from({ length: 20 }, () => model.load());
    const waiting = Array.from({ length: 20 }, () => model.whenReady());
    expect(starts).toHaveLength(1);
    expect(model.state).toBe('LOADING');
    expect(model.tryLease()).toBe(undefined);
    expect(model.hosts).toEqual([]);
    expect(model.info).toEqual({});
    await vi.advanceTimersByTimeAsync(123);
    nthStart(0).succeed();
    await Promise.all([...loads, ...waiting]);
    expect(model.state).toBe('READY');
    expect(states).toEqual(['READY']);
    expect(model.loadMs).toBe(123);
    expect(model.hosts).toEqual([nthStart(0).host]);
    expect(model.info).toEqual(nthStart(0).host.info);
    await model.load();
    await model.whenReady();
    expect(starts).toHaveLength(1);
  });

  it('keeps what the model was given until it is measured', async () => {
    const { model } = await setUpReady({ instances: 2 });
    expect(model).toMatchObject({ modelId: 'm', reservationId: 'm (next)', threads: 3, memoryBytes: 77 });
    expect(await model.measureMemory()).toBe(2000);
    expect(model.memoryBytes).toBe(2000);
  });

  it('goes on counting as what it took while a host of it is started again', async () => {
    const { model, host, nthStart } = await setUpReady({ instances: 2 });
    expect(await model.measureMemory()).toBe(2000);
    host.crash();
    await settle();
    expect(await model.measureMemory()).toBe(2000);
    nthStart(1).host.crash();
    await settle();
    expect(await model.measureMemory()).toBe(2000);
    nthStart(2).succeed();
    await settle();
    expect(await model.measureMemory()).toBe(2000);
    expect((await model.unload(0)).reclaimedBytes).toBe(1000);
  });

  it('gives all who wait the same error when it fails, and leaves nothing behind', async () => {
    const { model, starts, states, crashes, nthStart } = setUp();
    const waiting = [model.load(), model.load(), model.whenReady()];
    const broken = new ManagerError('MODEL_LOAD_FAILED', 'the file is damaged');
    nthStart(0).fail(broken);
    expect(await Promise.all(waiting.map(failure))).toEqual([broken, broken, broken]);
    expect(await failure(model.load())).toBe(broken);
    expect(model.state).toBe('FAILED');
    expect(model.hosts).toEqual([]);
    expect(model.tryLease()).toBe(undefined);
    expect(states).toEqual(['FAILED: MODEL_LOAD_FAILED']);
    await vi.advanceTimersByTimeAsync(10 * COOL_DOWN_MS);
    expect(starts).toHaveLength(1);
    expect(crashes).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('is over when all instances are there, and not before', async () => {
    const { model, starts, nthStart } = setUp({ instances: 3 });
    const loading = model.load();
    expect(starts).toHaveLength(3);
    nthStart(2).succeed();
    nthStart(0).succeed();
    await settle();
    expect(model.state).toBe('LOADING');
    expect(model.tryLease()).toBe(undefined);
    nthStart(1).succeed();
    await loading;
    expect(model.state).toBe('READY');
    expect(model.hosts).toEqual([nthStart(0).host, nthStart(1).host, nthStart(2).host]);
  });

  it('ends the instances that are there when another cannot be started', async () => {
    const { model, nthStart } = setUp({ instances: 2 });
    const loading = failure(model.load());
    nthStart(0).succeed();
    nthStart(1).fail(new ManagerError('MODEL_LOAD_FAILED', 'no memory for a second one'));
    expect((await loading).message).toBe('no memory for a second one');
    expect(nthStart(0).host.stops).toBe(1);
    expect(model.hosts).toEqual([]);
    expect(model.state).toBe('FAILED');
    expect(vi.getTimerCount()).toBe(0);
  });

  it('gives up the other instances when one cannot be started, and says so when they have ended', async () => {
    const { model, nthStart } = setUp({ instances: 3, heedsSignal: true });
    const loading = failure(model.load());
    let ended!: () => void;
    nthStart(0).host.stop = () => new Promise((resolve) => (ended = resolve));
    nthStart(0).succeed();
    await settle();
    const broken = new ManagerError('MODEL_LOAD_FAILED', 'damaged');
    nthStart(2).fail(broken);
    await settle();
    expect(nthStart(1).signal.aborted).toBe(true);
    expect(model.state).toBe('LOADING');
    ended();
    expect(await loading).toBe(broken);
    expect(model.state).toBe('FAILED');
  });

  it('has not failed before a start that cannot be given up is over', async () => {
    const { model, nthStart } = setUp({ instances: 2 });
    const loading = failure(model.load());
    nthStart(0).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    await settle();
    expect(model.state).toBe('LOADING');
    nthStart(1).succeed();
    await loading;
    expect(nthStart(1).host.stops).toBe(1);
  });

  it('does not start an instance again that crashed while another could not be started', async () => {
    const { model, starts, nthStart } = setUp({ instances: 2 });
    const loading = failure(model.load());
    nthStart(0).succeed();
    await settle();
    nthStart(0).host.crash();
    await settle(); // it is being started again, at once
    nthStart(2).succeed();
    await settle();
    nthStart(2).host.crash();
    await settle(); // and again, after a delay
    nthStart(1).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    await loading;
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    expect(starts).toHaveLength(3);
    expect(model.hosts).toEqual([]);
    expect(model.state).toBe('FAILED');
    expect(vi.getTimerCount()).toBe(0);
  });

  it('gives up the restart of an instance when another could not be started', async () => {
    const { model, starts, nthStart } = setUp({ instances: 2, heedsSignal: true });
    const loading = failure(model.load());
    nthStart(0).succeed();
    await settle();
    nthStart(0).host.crash();
    await settle(); // it is being started again
    nthStart(1).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    expect((await loading).message).toBe('damaged');
    expect(nthStart(2).signal.aborted).toBe(true);
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    expect(starts).toHaveLength(3);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('goes on while one of its instances crashes again and again', async () => {
    const { model, starts, states, nthStart } = setUp({ instances: 2 });
    const loading = model.load();
    nthStart(0).succeed();
    await settle();
    nthStart(0).host.crash();
    await settle();
    for (const delayMs of [500, 1_000, 2_000, 0]) {
      starts.at(-1)?.fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
      await vi.advanceTimersByTimeAsync(delayMs);
    }
    expect(model.state).toBe('LOADING');
    nthStart(1).succeed();
    await loading;
    expect(states).toEqual(['READY']);
  });

  it('gives up a start that came too late because another could not be made', async () => {
    const { model, nthStart } = setUp({ instances: 2 });
    const loading = failure(model.load());
    nthStart(0).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    await settle();
    nthStart(1).succeed();
    expect((await loading).message).toBe('damaged');
    expect(nthStart(1).host.stops).toBe(1);
    expect(model.hosts).toEqual([]);
  });
});

describe('a lease', () => {
  it('counts until it is released, and once only', async () => {
    const { model, host, onIdle } = await setUpReady();
    const one = lease(model);
    const other = lease(model);
    expect(one.modelId).toBe('m');
    expect(one.model).toBe(host.computeFn);
    expect(model.leases).toBe(2);
    one.release();
    one.release();
    expect(model.leases).toBe(1);
    expect(onIdle).not.toHaveBeenCalled();
    await other[Symbol.asyncDispose]();
    expect(model.leases).toBe(0);
    expect(onIdle).toHaveBeenCalledTimes(1);
  });

  it('is on the least busy instance', async () => {
    const { model, starts } = await setUpReady({ instances: 3 });
    const count = new Map<ComputeFunction, number>();
    const leases = Array.from({ length: 9 }, () => lease(model));
    for (const { model: computeFn } of leases) count.set(computeFn, (count.get(computeFn) ?? 0) + 1);
    expect(starts.map(({ host }) => count.get(host.computeFn))).toEqual([3, 3, 3]);

    const second = starts[1]?.host.computeFn;
    for (const each of leases.filter((each) => each.model === second).slice(0, 2)) each.release();
    expect([lease(model), lease(model)].map((each) => each.model)).toEqual([second, second]);
  });

  it('is waited for by all who want the model idle', async () => {
    const { model } = await setUpReady();
    await model.whenIdle();
    const one = lease(model);
    const other = lease(model);
    let idle = 0;
    void model.whenIdle().then(() => idle++);
    void model.whenIdle().then(() => idle++);
    one.release();
    await settle();
    expect(idle).toBe(0);
    other.release();
    await settle();
    expect(idle).toBe(2);
  });
});

describe('a retired model', () => {
  it('gives out no leases until it is resumed', async () => {
    const { model, states } = await setUpReady();
    const before = lease(model);
    model.retire();
    model.retire();
    expect(model.state).toBe('DRAINING');
    expect(model.tryLease()).toBe(undefined);
    before.release();
    let ready = false;
    const waiting = model.whenReady().then(() => (ready = true));
    await settle();
    expect(ready).toBe(false);
    model.resume();
    model.resume();
    await waiting;
    expect(model.state).toBe('READY');
    expect(states).toEqual(['READY', 'DRAINING', 'READY']);
    lease(model).release();
  });

  it('is told to those who wait for it to be ready', async () => {
    const { model, nthStart, starts } = await setUpReady();
    nthStart(0).host.crash();
    await settle();
    const waiting = failure(model.whenReady());
    starts[1]?.succeed();
    model.retire();
    await model.unload(0);
    expect((await waiting).code).toBe('MODEL_DRAINING');
  });

  it('may be so before it has been loaded', async () => {
    const { model, nthStart } = setUp();
    const loading = model.load();
    model.retire();
    nthStart(0).succeed();
    await loading;
    expect(model.state).toBe('DRAINING');
    expect(model.tryLease()).toBe(undefined);
    model.resume();
    expect(model.state).toBe('READY');
  });

  it('is started again when it crashes, and is there when it is resumed', async () => {
    const { model, host, starts, nthStart } = await setUpReady();
    model.retire();
    host.crash();
    await settle();
    expect(starts).toHaveLength(2);
    expect(model.state).toBe('DRAINING');
    nthStart(1).succeed();
    await settle();
    expect(model.state).toBe('DRAINING');
    model.resume();
    expect(model.state).toBe('READY');
    expect(lease(model).model).toBe(nthStart(1).host.computeFn);
  });

  it('is loading when it is resumed while it is started again', async () => {
    const { model, host, nthStart, states } = await setUpReady();
    model.retire();
    host.crash();
    await settle();
    const before = model.whenReady();
    model.resume();
    expect(model.state).toBe('LOADING');
    const after = model.whenReady();
    nthStart(1).succeed();
    await Promise.all([before, after]);
    expect(states).toEqual(['READY', 'DRAINING', 'LOADING: MODEL_CRASHED', 'READY']);
  });

  it('has failed when it is resumed after it has crashed again and again', async () => {
    const all = await setUpReady();
    const { model, starts, states } = all;
    model.retire();
    for (const delayMs of [0, 500, 1_000, 2_000]) await crashAndRestart(all, delayMs);
    starts.at(-1)?.fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged meanwhile'));
    await settle();
    const waiting = failure(model.whenReady());
    expect(model.state).toBe('DRAINING');
    model.resume();
    expect(model.state).toBe('FAILED');
    expect(states).toEqual(['READY', 'DRAINING', 'FAILED: MODEL_FAILED']);
    expect((await waiting).message).toContain('damaged meanwhile');
    expect((await failure(model.whenReady())).code).toBe('MODEL_FAILED');
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    starts.at(-1)?.succeed();
    await model.load();
    await settle();
    expect(model.state).toBe('READY');
  });

  it('is not ready when it is up again after a crash, until it is resumed', async () => {
    const { model, host, nthStart, states } = await setUpReady();
    host.crash();
    await settle();
    model.retire();
    nthStart(1).succeed();
    await settle();
    expect(model.state).toBe('DRAINING');
    model.resume();
    expect(states).toEqual(['READY', 'LOADING: MODEL_CRASHED', 'DRAINING', 'READY']);
  });

  it('lets those who wait for it go on waiting when one of its instances crashes', async () => {
    const { model, host } = await setUpReady({ instances: 2 });
    model.retire();
    const waiting = model.whenReady();
    host.crash();
    await settle();
    model.resume();
    await waiting;
  });

  it('is not resumed once it is unloaded', async () => {
    const { model } = await setUpReady();
    model.retire();
    const unloading = model.unload(MINUTE_MS);
    model.resume();
    expect(model.state).toBe('DRAINING');
    await unloading;
    model.resume();
    expect(model.state).toBe('UNLOADED');
  });

  it('is as it was when it was resumed without having been retired', async () => {
    const { model, states } = await setUpReady();
    model.resume();
    expect(states).toEqual(['READY']);
  });
});

describe('unloading', () => {
  it('waits for the leases that are out, then ends the hosts', async () => {
    const { model, host, states, nthStart } = await setUpReady({ instances: 2 });
    const one = lease(model);
    const other = lease(model);
    const unloading = model.unload(MINUTE_MS);
    await vi.advanceTimersByTimeAsync(MINUTE_MS / 2);
    expect(model.state).toBe('DRAINING');
    one.release();
    await settle();
    expect(host.stops).toBe(0);
    other.release();
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 2000 });
    expect([host.stops, nthStart(1).host.stops]).toEqual([1, 1]);
    expect(model.state).toBe('UNLOADED');
    expect(states).toEqual(['READY', 'DRAINING', 'UNLOADED']);
    expect(model.hosts).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('cuts off what takes longer than graceMs', async () => {
    const { model, host } = await setUpReady();
    const cutOff = lease(model);
    const idle = model.whenIdle();
    const unloading = model.unload(MINUTE_MS);
    await vi.advanceTimersByTimeAsync(MINUTE_MS - 1);
    expect(host.stops).toBe(0);
    await vi.advanceTimersByTimeAsync(1);
    expect(await unloading).toEqual({ interrupted: 1, reclaimedBytes: 1000 });
    expect(host.stops).toBe(1);
    await Promise.all([idle, model.whenIdle()]);
    cutOff.release();
    expect(model.leases).toBe(0);
    expect(model.state).toBe('UNLOADED');
  });

  it.each([Number.POSITIVE_INFINITY, 2 ** 31])('waits as long as it may with a graceMs of %d', async (graceMs) => {
    const { model, host } = await setUpReady();
    const long = lease(model);
    const unloading = model.unload(graceMs);
    await vi.advanceTimersByTimeAsync(24 * 60 * MINUTE_MS);
    expect(host.stops).toBe(0);
    long.release();
    expect((await unloading).interrupted).toBe(0);
  });

  it('refuses new leases from its first moment on', async () => {
    const { model, starts } = await setUpReady();
    const last = lease(model);
    const unloading = model.unload(MINUTE_MS);
    expect(model.tryLease()).toBe(undefined);
    const error = await failure(model.whenReady());
    expect(error.code).toBe('MODEL_DRAINING');
    expect(error.toCommError()).toMatchObject({ code: 'UNAVAILABLE', reason: 'MODEL_DRAINING', retryable: true });
    last.release();
    await unloading;
    expect(model.tryLease()).toBe(undefined);
    expect((await failure(model.whenReady())).code).toBe('MODEL_DRAINING');
    expect(starts).toHaveLength(1);
  });

  it('can be hurried, but not slowed down, by asking for it again', async () => {
    const { model, host } = await setUpReady();
    lease(model);
    const slow = model.unload(MINUTE_MS);
    const slower = model.unload(2 * MINUTE_MS);
    const quick = model.unload(10);
    await vi.advanceTimersByTimeAsync(10);
    const outcome = { interrupted: 1, reclaimedBytes: 1000 };
    expect(await Promise.all([slow, slower, quick])).toEqual([outcome, outcome, outcome]);
    expect(host.stops).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('leaves the model unloaded even when a host fails to end', async () => {
    const { model, host, nthStart } = await setUpReady({ instances: 2 });
    host.stop = () => Promise.reject(new Error('dispose failed'));
    await expect(model.unload(0)).rejects.toThrow('dispose failed');
    expect(model.state).toBe('UNLOADED');
    expect(model.hosts).toEqual([]);
    expect(nthStart(1).host.stops).toBe(1);
  });
});

describe('unloading while the model is loaded', () => {
  it('gives the start up, and tells those who wait that the model is being unloaded', async () => {
    const { model, nthStart } = setUp({ heedsSignal: true });
    const waiting = [model.load(), model.whenReady()];
    const unloading = model.unload(MINUTE_MS);
    expect(nthStart(0).signal.aborted).toBe(true);
    const errors = await Promise.all(waiting.map(failure));
    expect(errors.map(({ code }) => code)).toEqual(['MODEL_DRAINING', 'MODEL_DRAINING']);
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect(model.state).toBe('UNLOADED');
    expect(nthStart(0).host.stops).toBe(0);
  });

  it('ends the host of a start that comes to its end all the same, and no one gets it', async () => {
    const { model, nthStart } = setUp({ instances: 2 });
    const waiting = [model.load(), model.whenReady()].map(failure);
    nthStart(1).succeed();
    await settle();
    const unloading = model.unload(0);
    await settle();
    expect(model.state).toBe('DRAINING');
    expect(nthStart(1).host.stops).toBe(0);
    nthStart(0).succeed();
    const errors = await Promise.all(waiting);
    expect(errors.map(({ code }) => code)).toEqual(['MODEL_DRAINING', 'MODEL_DRAINING']);
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 1000 });
    expect([nthStart(0).host.stops, nthStart(1).host.stops]).toEqual([1, 1]);
    expect(model.state).toBe('UNLOADED');
  });

  it('does without a host when the start fails', async () => {
    const { model, states, nthStart } = setUp();
    const waiting = failure(model.load());
    const unloading = model.unload(0);
    nthStart(0).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    expect((await waiting).code).toBe('MODEL_DRAINING');
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect(states).toEqual(['DRAINING', 'UNLOADED']);
  });

  it('is the end of it even when the load fails at the same time', async () => {
    const { model, states, nthStart } = setUp({ instances: 2 });
    const waiting = failure(model.load());
    let ended!: () => void;
    const stop = vi.fn(() => new Promise<void>((resolve) => (ended = resolve)));
    nthStart(0).host.stop = stop;
    nthStart(0).succeed();
    nthStart(1).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    await settle(); // the first one is being stopped
    const unloading = model.unload(0);
    await settle();
    expect(model.state).toBe('DRAINING');
    ended();
    expect((await waiting).code).toBe('MODEL_DRAINING');
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect(stop).toHaveBeenCalledTimes(1);
    expect(states).toEqual(['DRAINING', 'UNLOADED']);
  });
});

describe('a crash', () => {
  it('is told, and the model is started again at once', async () => {
    const { model, starts, states, crashes, nthStart, host } = await setUpReady();
    const old = lease(model);
    host.crash();
    await settle();
    expect(model.state).toBe('LOADING');
    expect(model.hosts).toEqual([]);
    expect(model.info).toEqual({});
    expect(model.tryLease()).toBe(undefined);
    expect(crashes.map(({ code }) => code)).toEqual(['MODEL_CRASHED']);
    expect(starts).toHaveLength(2);

    const waiting = model.whenReady();
    nthStart(1).succeed();
    await waiting;
    expect(lease(model).model).toBe(nthStart(1).host.computeFn);
    expect(model.state).toBe('READY');
    expect(states).toEqual(['READY', 'LOADING: MODEL_CRASHED', 'READY']);
    expect(model.leases).toBe(2);
    old.release();
    expect(model.leases).toBe(1);
  });

  it('of one instance leaves the others at work', async () => {
    const { model, starts, states, nthStart } = await setUpReady({ instances: 2 });
    const onFirst = lease(model);
    nthStart(0).host.crash();
    await settle();
    expect(model.state).toBe('READY');
    expect(model.hosts).toEqual([nthStart(1).host]);
    expect(starts).toHaveLength(3);
    const onSecond = [lease(model), lease(model)];
    for (const each of onSecond) expect(each.model).toBe(nthStart(1).host.computeFn);
    nthStart(2).succeed();
    await settle();
    expect(model.hosts).toEqual([nthStart(2).host, nthStart(1).host]);
    expect(states).toEqual(['READY']);
    // The lease on the one that crashed is out still, and counts for its place.
    onFirst.release();
    expect(lease(model).model).toBe(nthStart(2).host.computeFn);
    expect(model.leases).toBe(3);
  });

  it('of all instances leaves the model loading until one of them is back', async () => {
    const { model, states, nthStart, starts } = await setUpReady({ instances: 2 });
    nthStart(0).host.crash();
    nthStart(1).host.crash();
    await settle();
    expect(model.state).toBe('LOADING');
    await vi.advanceTimersByTimeAsync(500);
    expect(starts).toHaveLength(4);
    nthStart(3).succeed();
    await settle();
    expect(model.state).toBe('READY');
    expect(model.hosts).toEqual([nthStart(3).host]);
    nthStart(2).succeed();
    await settle();
    expect(model.hosts).toHaveLength(2);
    expect(states).toEqual(['READY', 'LOADING: MODEL_CRASHED', 'READY']);
  });

  it('of all instances before the load is over is a load that failed, and leaves nothing behind', async () => {
    const { model, nthStart, starts, states } = setUp({ instances: 2 });
    const loading = failure(model.load());
    nthStart(0).succeed();
    await settle();
    nthStart(0).host.crash();
    nthStart(1).host.crash();
    nthStart(1).succeed();
    expect((await loading).code).toBe('MODEL_CRASHED');
    expect((await failure(model.whenReady())).code).toBe('MODEL_CRASHED');
    expect(states).toEqual(['FAILED: MODEL_CRASHED']);
    for (const start of starts.slice(2)) start.succeed();
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    expect(starts.filter(({ host, settled }) => host.alive || !settled)).toEqual([]);
    expect(model.hosts).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('of one instance before the load is over is made good', async () => {
    const { model, nthStart, states } = setUp({ instances: 2 });
    const loading = model.load();
    nthStart(0).succeed();
    await settle();
    nthStart(0).host.crash();
    await settle();
    nthStart(2).succeed();
    await settle();
    expect(model.state).toBe('LOADING');
    nthStart(1).succeed();
    await loading;
    expect(model.hosts).toEqual([nthStart(2).host, nthStart(1).host]);
    expect(states).toEqual(['READY']);
  });

  it('while the model is being unloaded does not end the wait for its leases, and nothing is started', async () => {
    const { model, starts, crashes, host } = await setUpReady();
    const last = lease(model);
    const unloading = model.unload(MINUTE_MS);
    host.crash();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(model.state).toBe('DRAINING');
    expect(crashes).toHaveLength(1);
    last.release();
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect(model.state).toBe('UNLOADED');
    expect(starts).toHaveLength(1);
  });

  it('before the model is unloaded leaves nothing to end', async () => {
    const { model, host, nthStart } = await setUpReady({ heedsSignal: true });
    host.crash();
    await settle();
    expect(await model.unload(MINUTE_MS)).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect(host.stops).toBe(0);
    expect(nthStart(1).signal.aborted).toBe(true);
    expect(model.state).toBe('UNLOADED');
  });

  it('of a host that has been stopped is none', async () => {
    const { model, host, crashes } = await setUpReady();
    await model.unload(0);
    host.crash();
    await settle();
    expect(crashes).toEqual([]);
    expect(model.state).toBe('UNLOADED');
  });

  it('leaves no host behind when the model is unloaded while it is started again', async () => {
    const { model, starts, host, nthStart } = await setUpReady();
    host.crash();
    await settle();
    const waiting = failure(model.whenReady());
    const unloading = model.unload(0);
    await settle();
    expect(model.state).toBe('DRAINING');
    nthStart(1).succeed();
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect((await waiting).code).toBe('MODEL_DRAINING');
    expect(nthStart(1).host.stops).toBe(1);
    expect(model.hosts).toEqual([]);
    expect(model.state).toBe('UNLOADED');
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    expect(starts).toHaveLength(2);
  });

  it.each([0, 1, 2, 3, 4, 5])(
    'does not make the model ready again when it is unloaded %d moments after it is up again',
    async (moments) => {
      const { model, host, states, nthStart } = await setUpReady();
      host.crash();
      await settle();
      nthStart(1).succeed();
      for (let i = 0; i < moments; i++) await Promise.resolve();
      await model.unload(0);
      expect(states.slice(states.indexOf('DRAINING'))).toEqual(['DRAINING', 'UNLOADED']);
      expect(nthStart(1).host.stops).toBe(1);
    },
  );

  it('leaves no start behind when the model is unloaded by whoever hears of it', async () => {
    const { model, host, starts, onState } = await setUpReady();
    onState.mockImplementationOnce(() => void model.unload(0));
    host.crash();
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    expect(starts).toHaveLength(1);
    expect(model.state).toBe('UNLOADED');
    expect(vi.getTimerCount()).toBe(0);
  });

  it('leaves no start behind when the model is unloaded before it is started again', async () => {
    const all = await setUpReady();
    const { model, starts } = all;
    await crashAndRestart(all, 0);
    starts[1]?.succeed();
    await settle();
    starts[1]?.host.crash();
    await settle(); // the next start comes after a delay
    await model.unload(0);
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    expect(starts).toHaveLength(2);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a model that crashes again and again', () => {
  it.each(['INSUFFICIENT_MEMORY', 'MODEL_MEMORY_EXCEEDED'] as const)(
    'is not given up where it was for what a caller gave it: %s',
    async (code) => {
      const { starts, states } = await setUpReady();
      for (let times = 1; times <= 20; times++) {
        starts.at(-1)?.host.crash('a large request', code);
        await settle();
        expect(starts).toHaveLength(times + 1);
        starts.at(-1)?.succeed();
        await settle();
      }
      expect(states.at(-1)).toBe('READY');
    },
  );

  /** Crashes until it is given up. */
  async function setUpGivenUp() {
    const all = await setUpReady();
    for (const delayMs of [0, 500, 1_000, 2_000]) await crashAndRestart(all, delayMs);
    all.starts.at(-1)?.succeed();
    await settle();
    all.starts.at(-1)?.host.crash('ended; the last it wrote: "out of ideas"');
    await settle();
    return all;
  }

  it('is started again with doubling delays, then left alone, and the error says what it wrote last', async () => {
    const { model, starts, states } = await setUpGivenUp();
    expect(model.state).toBe('FAILED');
    expect(model.tryLease()).toBe(undefined);
    const error = await failure(model.whenReady());
    expect(error.code).toBe('MODEL_FAILED');
    expect(error.message).toContain("model 'm' has crashed again and again and is left alone for 5 minutes");
    expect(error.message).toContain("reloadModel('m')");
    expect(error.message).toContain('ended; the last it wrote: "out of ideas"');
    expect(error.cause).toMatchObject({ code: 'MODEL_CRASHED', message: 'ended; the last it wrote: "out of ideas"' });
    expect(error.toCommError()).toMatchObject({ code: 'UNAVAILABLE', reason: 'MODEL_FAILED' });
    expect(states.at(-1)).toBe('FAILED: MODEL_FAILED');
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS - 1);
    expect(starts).toHaveLength(5);
  });

  it('tells those who wait for it when it is given up', async () => {
    const all = await setUpReady();
    for (const delayMs of [0, 500, 1_000, 2_000]) await crashAndRestart(all, delayMs);
    const waiting = [failure(all.model.whenReady()), failure(all.model.whenReady())];
    all.starts.at(-1)?.fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged meanwhile'));
    for (const { code, message } of await Promise.all(waiting))
      expect([code, message.endsWith('The last time: damaged meanwhile')]).toEqual(['MODEL_FAILED', true]);
  });

  it('works again when it can be started after it was left alone', async () => {
    const { model, starts, states } = await setUpGivenUp();
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    expect(starts).toHaveLength(6);
    expect(model.state).toBe('FAILED');
    starts.at(-1)?.succeed();
    await settle();
    expect(model.state).toBe('READY');
    await model.whenReady();
    lease(model).release();
    expect(states.slice(-2)).toEqual(['FAILED: MODEL_FAILED', 'READY']);
  });

  it('is left alone again when it crashes right after that', async () => {
    const { model, starts } = await setUpGivenUp();
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    starts.at(-1)?.succeed();
    await settle();
    starts.at(-1)?.host.crash('still broken');
    await settle();
    expect(model.state).toBe('FAILED');
    expect((await failure(model.whenReady())).message).toContain('still broken');
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS - 1);
    expect(starts).toHaveLength(6);
    await vi.advanceTimersByTimeAsync(1);
    starts.at(-1)?.fail(new ManagerError('MODEL_LOAD_FAILED', 'gone'));
    await settle();
    expect((await failure(model.whenReady())).message).toContain('gone');
  });

  it('leaves nothing behind when it is unloaded while it is left alone', async () => {
    const { model, starts } = await setUpGivenUp();
    expect(await model.unload(MINUTE_MS)).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    expect(starts).toHaveLength(5);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('has its delays from the beginning when it has answered a request', async () => {
    const all = await setUpReady();
    for (const delayMs of [0, 500, 1_000]) await crashAndRestart(all, delayMs);
    all.starts.at(-1)?.succeed();
    await settle();
    lease(all.model).release();
    for (const delayMs of [0, 500, 1_000]) await crashAndRestart(all, delayMs);
  });

  it('has no better prospects because a request that a crash has cut off is over', async () => {
    const all = await setUpReady();
    const cutOff = lease(all.model);
    for (const delayMs of [0, 500]) await crashAndRestart(all, delayMs);
    cutOff.release();
    for (const delayMs of [1_000, 2_000]) await crashAndRestart(all, delayMs);
  });

  it('has its delays from the beginning when it was up for 5 seconds', async () => {
    const all = await setUpReady();
    for (const delayMs of [0, 500, 1_000]) await crashAndRestart(all, delayMs);
    all.starts.at(-1)?.succeed();
    await vi.advanceTimersByTimeAsync(4_999);
    for (const delayMs of [0, 500]) await crashAndRestart(all, delayMs);
  });

  it('is ready as long as one of its instances is alive', async () => {
    const all = await setUpReady({ instances: 2 });
    const { model, starts, states, nthStart } = all;
    nthStart(0).host.crash();
    await settle();
    for (const delayMs of [500, 1_000, 2_000]) await crashAndRestart(all, delayMs);
    starts.at(-1)?.succeed();
    await settle();
    starts.at(-1)?.host.crash();
    await settle();
    expect(model.state).toBe('READY');
    expect(model.hosts).toEqual([nthStart(1).host]);
    expect(lease(model).model).toBe(nthStart(1).host.computeFn);
    expect(states).toEqual(['READY']);
    await vi.advanceTimersByTimeAsync(COOL_DOWN_MS);
    starts.at(-1)?.succeed();
    await settle();
    expect(model.hosts).toHaveLength(2);
    expect(lease(model).model).toBe(starts.at(-1)?.host.computeFn);
  });

  it('is not ready in between when it crashes in the moment of its start', async () => {
    const { model, host, starts, states } = await setUpReady();
    host.crash();
    await settle();
    starts[1]?.host.crash();
    starts[1]?.succeed();
    await settle();
    expect(model.state).toBe('LOADING');
    await vi.advanceTimersByTimeAsync(500);
    starts[2]?.succeed();
    await settle();
    expect(states).toEqual(['READY', 'LOADING: MODEL_CRASHED', 'READY']);
  });

  it('may fail to start as well', async () => {
    const { model, host, starts, states, crashes } = await setUpReady();
    host.crash();
    await settle();
    starts[1]?.fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    await vi.advanceTimersByTimeAsync(500);
    expect(starts).toHaveLength(3);
    expect(model.state).toBe('LOADING');
    starts[2]?.succeed();
    await settle();
    expect(states).toEqual(['READY', 'LOADING: MODEL_CRASHED', 'READY']);
    expect(crashes).toHaveLength(1);
  });
});

describe('whatever happens in whatever order', () => {
  type Command =
    | { readonly type: 'lease' | 'start succeeds' | 'start fails' | 'retire' | 'resume' | 'wait' }
    | { readonly type: 'crash' | 'release'; readonly which: number }
    | { readonly type: 'unload'; readonly graceMs: number }
    | { readonly type: 'time passes'; readonly ms: number };

  const which = fc.nat({ max: 3 });
  const plain = fc.constantFrom('lease', 'start succeeds', 'start fails', 'retire', 'resume', 'wait');
  const command: fc.Arbitrary<Command> = fc.oneof(
    { weight: 6, arbitrary: fc.record({ type: fc.constantFrom('lease' as const, 'start succeeds' as const) }) },
    { weight: 2, arbitrary: fc.record({ type: plain as fc.Arbitrary<'wait'> }) },
    { weight: 4, arbitrary: fc.record({ type: fc.constantFrom('crash' as const, 'release' as const), which }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('unload' as const), graceMs: fc.constantFrom(0, 5, 50) }) },
    {
      weight: 3,
      arbitrary: fc.record({ type: fc.constant('time passes' as const), ms: fc.constantFrom(1, 500, 5_000, 300_000) }),
    },
  );

  it('leases are on living hosts, nobody waits for ever, and nothing is left behind', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(command, { maxLength: 60, size: 'max' }),
        fc.integer({ min: 1, max: 3 }),
        fc.boolean(),
        async (commands, instances, heedsSignal) => {
          const { model, starts, states } = setUp({ instances, heedsSignal });
          const handedOut = new Set<FakeHost>();
          const leases: ModelLease[] = [];
          let waiting = 0;
          let retired = false;
          let unloadBegan = false;
          const follow = (work: Promise<unknown>) => {
            waiting++;
            work.then(
              () => waiting--,
              () => waiting--,
            );
          };
          const perform = (next: Command) => {
            const start = starts.find(({ settled }) => !settled);
            const living = [...handedOut].filter(({ alive }) => alive);
            switch (next.type) {
              case 'lease': {
                const given = model.tryLease();
                if (!given) break;
                leases.push(given);
                expect(retired || unloadBegan, 'a lease of a model that is to go').toBe(false);
                expect(living.map(({ computeFn }) => computeFn)).toContain(given.model);
                break;
              }
              case 'start succeeds':
                if (start) handedOut.add(start.host);
                start?.succeed();
                break;
              case 'start fails':
                start?.fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
                break;
              case 'crash':
                living[next.which]?.crash();
                break;
              case 'release':
                leases.splice(next.which, 1)[0]?.release();
                break;
              case 'retire':
                retired = true;
                model.retire();
                break;
              case 'resume':
                retired = false;
                model.resume();
                break;
              case 'wait':
                follow(model.whenReady());
                break;
              case 'unload':
                unloadBegan = true;
                follow(model.unload(next.graceMs));
                break;
              case 'time passes':
                vi.advanceTimersByTime(next.ms);
            }
          };
          follow(model.load());
          for (const next of commands) {
            perform(next);
            await settle();
            const living = [...handedOut].filter(({ alive }) => alive);
            expect(living.length + starts.filter(({ settled }) => !settled).length).toBeLessThanOrEqual(instances);
            expect(new Set(model.hosts)).toEqual(new Set(living));
            expect(model.leases).toBe(leases.length);
            if (model.state === 'READY') expect(living).not.toEqual([]);
            if (model.state === 'FAILED' || model.state === 'UNLOADED') expect(living).toEqual([]);
          }
          perform({ type: 'unload', graceMs: 0 });
          vi.advanceTimersByTime(0);
          while (starts.some(({ settled }) => !settled)) {
            perform({ type: 'start succeeds' });
            await settle();
          }
          await vi.advanceTimersByTimeAsync(2 * COOL_DOWN_MS);
          expect(model.state).toBe('UNLOADED');
          expect(states.at(-1)).toBe('UNLOADED');
          expect(states.filter((state, index) => state === states[index - 1])).toEqual([]);
          expect([...handedOut].filter(({ alive, stops }) => alive || stops > 1)).toEqual([]);
          expect(waiting).toBe(0);
          expect(vi.getTimerCount()).toBe(0);
        },
      ),
      { numRuns: 300 },
    );
  });
});
