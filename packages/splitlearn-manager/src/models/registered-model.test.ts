import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { bringToLife, FakeStarts, failure, knownModel, settle } from '../../test/support/models.js';
import { ManagerError } from '../errors.js';
import { ManagedModel } from './managed-model.js';
import type { RegisteredModel } from './registered-model.js';

/**
 * A model that is known, with as much of a manager as it takes: its lives begin when a test lets them in, and their
 * hosts start when the test says so.
 */
function setUp({ admitted = true } = {}) {
  const fakes = new FakeStarts(10);
  const bringUps: { evict: boolean; signal: AbortSignal }[] = [];
  let admit!: () => void;
  const admission = new Promise<void>((resolve) => (admit = resolve));
  if (admitted) admit();
  const startLife = async () => {
    const life: ManagedModel = new ManagedModel({
      ...{ modelId: 'm', instances: 1, reservationId: 'm', threads: 1, memoryBytes: 5 },
      startHost: (signal) => fakes.begin(signal),
      onCrash: () => {},
      onState: (state) => {
        if (state === 'READY') model.serve();
      },
      onIdle: () => {},
    });
    model.life = life;
    try {
      await life.load();
    } catch (error) {
      model.life = undefined;
      throw error;
    }
  };
  const model: RegisteredModel = knownModel('m', {}, async (evict, signal) => {
    bringUps.push({ evict, signal });
    await model.inTurn(async () => {
      await admission;
      signal.throwIfAborted();
      await (model.life ? model.life.load() : startLife());
    });
  });
  return { model, starts: fakes.all, bringUps, admit, nthStart: (index: number) => fakes.nth(index) };
}

async function setUpReady() {
  const all = setUp();
  const loading = all.model.load();
  await settle();
  all.nthStart(0).succeed();
  await loading;
  return all;
}

/** Begins to evict a model, as a manager does: it ends when the test says so. */
function beginEviction(model: RegisteredModel) {
  const life = model.life ?? expect.fail('it is not loaded');
  life.retire();
  let over!: () => void;
  model.evicting = new Promise<void>((resolve) => (over = resolve)).then(() => {
    model.evicting = undefined;
  });
  return {
    async complete() {
      await life.unload(0);
      model.life = undefined;
      over();
    },
    giveUp() {
      life.resume();
      model.serve();
      over();
    },
  };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('a model that is not loaded', () => {
  it('is loaded once for 50 requests at the same time, and each gets a lease', async () => {
    const { model, bringUps, starts, nthStart } = setUp();
    expect(model.state).toBe('UNLOADED');
    const acquiring = Array.from({ length: 50 }, () => model.acquire());
    expect(model.state).toBe('LOADING');
    expect(model.busy).toBe(true);
    await settle();
    nthStart(0).succeed();
    const leases = await Promise.all(acquiring);
    expect(bringUps).toHaveLength(1);
    expect(bringUps[0]?.evict).toBe(true);
    expect(starts).toHaveLength(1);
    expect(model.life?.leases).toBe(50);
    for (const lease of leases) lease.release();
    expect(model.busy).toBe(false);
    expect(model.state).toBe('READY');
  });

  it('gives all who wait the same error when it fails, and is loaded by the next request when it has been mended', async () => {
    const { model, bringUps, nthStart } = setUp();
    const acquiring = Array.from({ length: 50 }, () => failure(model.acquire()));
    const loading = failure(model.load());
    await settle();
    const broken = new ManagerError('MODEL_LOAD_FAILED', 'the file is damaged');
    nthStart(0).fail(broken);
    expect(new Set(await Promise.all([...acquiring, loading]))).toEqual(new Set([broken]));
    expect(bringUps).toHaveLength(1);
    expect(model.busy).toBe(false);

    const next = model.acquire();
    await settle();
    nthStart(1).succeed();
    expect((await next).model).toBe(nthStart(1).host.computeFn);
  });

  it('is loaded, with nobody evicted for it, when it is asked to be', async () => {
    const { model, bringUps, nthStart } = setUp();
    const loading = model.load(false);
    await settle();
    nthStart(0).succeed();
    await loading;
    expect(bringUps.map(({ evict }) => evict)).toEqual([false]);
    await model.load();
    expect(bringUps).toHaveLength(1);
  });

  it('says that it has failed as long as that is the last that is known of it', () => {
    const { model } = setUp();
    model.failure = new ManagerError('MODEL_LOAD_FAILED', 'damaged');
    expect(model.state).toBe('FAILED');
    model.failure = undefined;
    expect(model.state).toBe('UNLOADED');
    expect(model.lives).toEqual([]);
    expect(model.memoryBytes).toBe(0);
    expect(model).toMatchObject({ modelId: 'm', order: 0, loads: 0 });
  });

  it('is not loaded for a request that is over already', async () => {
    const { model, bringUps } = setUp();
    await expect(model.acquire(AbortSignal.abort(new Error('too late')))).rejects.toThrow('too late');
    expect(bringUps).toEqual([]);
  });
});

describe('those who wait', () => {
  it('are served in the order in which they came', async () => {
    const { model, nthStart } = setUp();
    const served: number[] = [];
    for (let i = 0; i < 20; i++) void model.acquire().then(() => served.push(i));
    await settle();
    nthStart(0).succeed();
    await settle();
    expect(served).toEqual(Array.from({ length: 20 }, (_, i) => i));
  });

  it('are as many as have not given up, and those leave no listener', async () => {
    const { model, nthStart } = setUp();
    const impatient = new AbortController();
    const patient = new AbortController();
    const spies = [impatient, patient].map(({ signal }) => ({
      add: vi.spyOn(signal, 'addEventListener'),
      remove: vi.spyOn(signal, 'removeEventListener'),
    }));
    const reason = new ManagerError('SHUT_DOWN', 'the deadline has passed');
    const givenUp = failure(model.acquire(impatient.signal));
    const acquiring = model.acquire(patient.signal);
    await settle();
    impatient.abort(reason);
    expect(await givenUp).toBe(reason);
    nthStart(0).succeed();
    await acquiring;
    for (const { add, remove } of spies) {
      expect(add).toHaveBeenCalledTimes(1);
      expect(remove.mock.calls).toEqual(add.mock.calls);
    }
    expect(model.life?.leases).toBe(1);
    patient.abort(reason);
    expect(model.life?.leases).toBe(1);
  });

  it('leave no listener when they wait in vain', async () => {
    const { model, nthStart } = setUp();
    const { signal } = new AbortController();
    const add = vi.spyOn(signal, 'addEventListener');
    const remove = vi.spyOn(signal, 'removeEventListener');
    const acquiring = failure(model.acquire(signal));
    await settle();
    nthStart(0).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    await acquiring;
    expect(remove.mock.calls).toEqual(add.mock.calls);
  });

  it('can be refused', async () => {
    const { model } = setUp({ admitted: false });
    const acquiring = [failure(model.acquire()), failure(model.acquire())];
    const reason = new ManagerError('MODEL_DRAINING', 'unloaded');
    model.removal = reason;
    model.refuse(reason);
    expect(await Promise.all(acquiring)).toEqual([reason, reason]);
    expect(model.busy).toBe(false);
    expect(model.state).toBe('DRAINING');
    expect(await failure(model.acquire())).toBe(reason);
    expect(await failure(model.load())).toBe(reason);
  });

  it('wait for a model that crashed, and get it when it is up again', async () => {
    const { model, nthStart } = await setUpReady();
    nthStart(0).host.crash();
    await settle();
    expect(model.state).toBe('LOADING');
    const acquiring = model.acquire();
    await settle();
    nthStart(1).succeed();
    expect((await acquiring).model).toBe(nthStart(1).host.computeFn);
  });

  it('are told when the model has crashed too often', async () => {
    const { model, starts, bringUps } = await setUpReady();
    starts[0]?.host.crash();
    await settle();
    const acquiring = failure(model.acquire());
    for (const delayMs of [500, 1_000, 2_000, 0]) {
      starts.at(-1)?.fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
      await vi.advanceTimersByTimeAsync(delayMs);
    }
    expect((await acquiring).code).toBe('MODEL_FAILED');
    expect((await failure(model.acquire())).code).toBe('MODEL_FAILED');
    expect(bringUps).toHaveLength(1);
  });

  it('are told even if they come in the moment in which a load has failed', async () => {
    const { model, nthStart } = setUp();
    const loading = failure(model.load());
    await settle();
    const { life } = model;
    nthStart(0).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    for (let i = 0; i < 100 && life?.state !== 'FAILED'; i++) await Promise.resolve();
    const acquiring = failure(model.acquire());
    await settle();
    await loading;
    expect((await acquiring).code).toBe('MODEL_LOAD_FAILED');
  });

  it('have the life that comes after an eviction', async () => {
    const { model, bringUps, nthStart } = await setUpReady();
    const eviction = beginEviction(model);
    const acquiring = [model.acquire(), model.acquire()];
    await settle();
    expect(bringUps).toHaveLength(2);
    await eviction.complete();
    await settle();
    nthStart(1).succeed();
    for (const lease of await Promise.all(acquiring)) expect(lease.model).toBe(nthStart(1).host.computeFn);
    expect(bringUps).toHaveLength(2);
  });

  it('have the present life when its eviction is given up', async () => {
    const { model, starts, nthStart } = await setUpReady();
    const eviction = beginEviction(model);
    const acquiring = model.acquire();
    await settle();
    eviction.giveUp();
    expect((await acquiring).model).toBe(nthStart(0).host.computeFn);
    await settle();
    expect(starts).toHaveLength(1);
  });

  it('for the restart of a model have its next life when it is evicted meanwhile', async () => {
    const { model, nthStart, bringUps } = await setUpReady();
    nthStart(0).host.crash();
    await settle();
    const acquiring = [model.acquire(), model.acquire()];
    await settle();
    const eviction = beginEviction(model);
    nthStart(1).succeed(); // too late
    await eviction.complete();
    await settle();
    expect(bringUps).toHaveLength(2);
    nthStart(2).succeed();
    for (const lease of await Promise.all(acquiring)) expect(lease.model).toBe(nthStart(2).host.computeFn);
  });
});

describe('a load that nobody wants any more', () => {
  it('is given up when it has not begun', async () => {
    const { model, bringUps, starts, admit } = setUp({ admitted: false });
    const controller = new AbortController();
    const acquiring = [failure(model.acquire(controller.signal)), failure(model.acquire(controller.signal))];
    await settle();
    expect(bringUps[0]?.signal.aborted).toBe(false);
    controller.abort(new ManagerError('SHUT_DOWN', 'gone'));
    await Promise.all(acquiring);
    expect(bringUps[0]?.signal.aborted).toBe(true);
    admit();
    await settle();
    expect(starts).toEqual([]);
    expect(model.state).toBe('UNLOADED');
    expect(model.busy).toBe(false);
  });

  it('goes on for one who has not given up', async () => {
    const { model, bringUps, admit, nthStart } = setUp({ admitted: false });
    const controller = new AbortController();
    const givenUp = failure(model.acquire(controller.signal));
    const acquiring = model.acquire();
    controller.abort(new ManagerError('SHUT_DOWN', 'gone'));
    await givenUp;
    admit();
    await settle();
    nthStart(0).succeed();
    await acquiring;
    expect(bringUps).toHaveLength(1);
  });

  it('goes on when it was asked for as such', async () => {
    const { model, bringUps, admit, nthStart } = setUp({ admitted: false });
    const controller = new AbortController();
    const loading = model.load();
    const givenUp = failure(model.acquire(controller.signal));
    controller.abort(new ManagerError('SHUT_DOWN', 'gone'));
    await givenUp;
    expect(bringUps[0]?.signal.aborted).toBe(false);
    admit();
    await settle();
    nthStart(0).succeed();
    await loading;
  });

  it('comes to its end, and its failure harms nobody, when it has begun', async () => {
    const { model, nthStart } = setUp();
    const controller = new AbortController();
    const acquiring = failure(model.acquire(controller.signal));
    await settle();
    controller.abort(new ManagerError('SHUT_DOWN', 'gone'));
    await acquiring;
    expect(model.state).toBe('LOADING');
    nthStart(0).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged')); // unhandled, it would fail this test run
    await settle();
    expect(model.life).toBe(undefined);
  });

  it('is begun anew for a request that comes before it is over', async () => {
    const { model, bringUps, admit, nthStart } = setUp({ admitted: false });
    const controller = new AbortController();
    const givenUp = failure(model.acquire(controller.signal));
    await settle();
    controller.abort(new ManagerError('SHUT_DOWN', 'gone'));
    await givenUp;
    const acquiring = [model.acquire(), model.acquire()];
    await settle();
    admit();
    await settle();
    nthStart(0).succeed();
    await Promise.all(acquiring);
    expect(bringUps.map(({ signal }) => signal.aborted)[0]).toBe(true);
    expect(bringUps).toHaveLength(2);
  });

  it('is begun anew for a load that comes before it is over', async () => {
    const { model, bringUps, admit, nthStart } = setUp({ admitted: false });
    const controller = new AbortController();
    const givenUp = failure(model.acquire(controller.signal));
    await settle();
    controller.abort(new ManagerError('SHUT_DOWN', 'gone'));
    await givenUp;
    const loading = model.load();
    await settle();
    admit();
    await settle();
    nthStart(0).succeed();
    await loading;
    expect(bringUps).toHaveLength(2);
    expect(model.state).toBe('READY');
  });
});

describe('a load that may not evict', () => {
  const noRoom = new ManagerError('INSUFFICIENT_MEMORY', 'there is no room');

  /** A model for which there is room only after an eviction; a load without is refused when the test says so. */
  function setUpWithoutRoom(refusal = noRoom) {
    const bringUps: boolean[] = [];
    let refuse!: () => void;
    const refused = new Promise<never>((_, reject) => (refuse = () => reject(refusal)));
    const model: RegisteredModel = knownModel('m', {}, async (evict) => {
      bringUps.push(evict);
      await (evict ? bringToLife(model, 1) : refused);
      model.serve();
    });
    return { model, bringUps, refuse };
  }

  it('is refused where there is no room without', async () => {
    const { model, bringUps, refuse } = setUpWithoutRoom();
    const loading = [failure(model.load(false)), failure(model.load(false))];
    refuse();
    expect(await Promise.all(loading)).toEqual([noRoom, noRoom]);
    expect(bringUps).toEqual([false]);
  });

  it('is not tried again where there is no room even after evictions', async () => {
    const bringUp = vi.fn(async () => Promise.reject(noRoom));
    const model = knownModel('m', {}, bringUp);
    expect(await Promise.all([failure(model.load()), failure(model.acquire())])).toEqual([noRoom, noRoom]);
    expect(bringUp).toHaveBeenCalledTimes(1);
  });

  it('evicts, and nobody is refused, when a request has joined it', async () => {
    const { model, bringUps, refuse } = setUpWithoutRoom();
    const loading = model.load(false);
    const acquiring = [model.acquire(), model.acquire()];
    await settle();
    expect(bringUps).toEqual([false]);
    refuse();
    await Promise.all([loading, ...acquiring]);
    expect(bringUps).toEqual([false, true]);
  });

  it('evicts when a load that may has joined it', async () => {
    const { model, bringUps, refuse } = setUpWithoutRoom(new ManagerError('TOO_MANY_MODELS', 'there is no place'));
    const loading = [model.load(false), model.load()];
    refuse();
    await Promise.all(loading);
    expect(bringUps).toEqual([false, true]);
  });

  it('does not evict for one who has given up, nor for one who has come before', async () => {
    const { model, bringUps, refuse } = setUpWithoutRoom();
    const controller = new AbortController();
    const loading = failure(model.load(false));
    const acquiring = failure(model.acquire(controller.signal));
    controller.abort(new ManagerError('SHUT_DOWN', 'gone'));
    await acquiring;
    refuse();
    expect(await loading).toBe(noRoom);
    await model.load();
    expect(bringUps).toEqual([false, true]);
    await model.life?.unload(0);
    model.life = undefined;
    expect(await failure(model.load(false))).toBe(noRoom);
    expect(bringUps).toEqual([false, true, false]);
  });

  it('is not tried again when it fails for another reason', async () => {
    const { model, bringUps, refuse } = setUpWithoutRoom(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    const waiting = [failure(model.load(false)), failure(model.load()), failure(model.acquire())];
    refuse();
    for (const { code } of await Promise.all(waiting)) expect(code).toBe('MODEL_LOAD_FAILED');
    expect(bringUps).toEqual([false]);
  });
});

describe('what is known of a model', () => {
  it('is that it is busy while it has leases, is waited for or begins', async () => {
    const { model } = await setUpReady();
    expect(model.busy).toBe(false);
    const lease = await model.acquire();
    expect(model.busy).toBe(true);
    lease.release();
    expect(model.busy).toBe(false);
    model.starting = Promise.resolve();
    expect(model.busy).toBe(true);
    model.starting = undefined;
    const eviction = beginEviction(model);
    const acquiring = model.acquire();
    expect(model.busy).toBe(true);
    eviction.giveUp();
    (await acquiring).release();
    expect(model.busy).toBe(false);
  });

  it('is all its lives and what they take together', async () => {
    const { model } = await setUpReady();
    const { life } = model;
    await life?.measureMemory();
    model.previous = model.next = life;
    expect(model.lives).toEqual([life, life, life]);
    expect(model.memoryBytes).toBe(30);
  });

  it('is when it was last asked for', async () => {
    const { model } = await setUpReady();
    await vi.advanceTimersByTimeAsync(1_234);
    const before = model.lastUsedAtMs;
    const lease = await model.acquire();
    expect(model.lastUsedAtMs).toBe(before + 1_234);
    await vi.advanceTimersByTimeAsync(10);
    lease.release();
    expect(model.lastUsedAtMs).toBe(before + 1_234);
  });

  it('begins one life at a time, in the order in which they were asked for, whether those before succeed or not', async () => {
    const { model } = setUp();
    const begun: string[] = [];
    const ends = new Map<string, () => void>();
    const begin = (name: string) =>
      model.inTurn(async () => {
        begun.push(name);
        await new Promise<void>((resolve) => ends.set(name, resolve));
        if (name === 'first') throw new Error('no luck');
        return name;
      });
    const [first, second, third] = ['first', 'second', 'third'].map(begin);
    await settle();
    expect(begun).toEqual(['first']);
    ends.get('first')?.();
    await expect(first).rejects.toThrow('no luck');
    await settle();
    expect(begun).toEqual(['first', 'second']);
    ends.get('second')?.();
    expect(await second).toBe('second');
    await settle();
    ends.get('third')?.();
    expect(await third).toBe('third');
  });

  it('begins none while it is being evicted', async () => {
    const { model } = await setUpReady();
    const eviction = beginEviction(model);
    let begun = false;
    const beginning = model.inTurn(async () => {
      begun = true;
    });
    await settle();
    expect(begun).toBe(false);
    await eviction.complete();
    await beginning;
    expect(begun).toBe(true);
  });
});
