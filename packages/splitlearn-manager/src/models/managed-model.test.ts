import type { ComputeFunction } from '@splitlearn/comm';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ManagerError } from '../errors.js';
import type { ModelHost } from '../hosts/model-host.js';
import type { ModelLease } from './lease.js';
import { ManagedModel } from './managed-model.js';

const MINUTE_MS = 60_000;

/** A host that does what a test says. */
class FakeHost implements ModelHost {
  readonly info = { attributes: { engine: 'fake' } };
  readonly pid = 1;
  readonly computeFn: ComputeFunction = { compute: async () => ({ outputs: {} }) };
  readonly died: Promise<ManagerError>;
  crash!: () => void;
  dead = false;
  stops = 0;

  constructor() {
    this.died = new Promise((resolve) => {
      this.crash = () => {
        this.dead = true;
        resolve(new ManagerError('MODEL_CRASHED', 'the process ended'));
      };
    });
  }

  get alive(): boolean {
    return !this.dead && this.stops === 0;
  }

  async memoryBytes(): Promise<number> {
    return this.alive ? 1000 : 0;
  }

  async stop(): Promise<void> {
    this.stops++;
  }
}

/** One start of a host, which a test makes succeed or fail. */
interface Start {
  readonly signal: AbortSignal;
  readonly host: FakeHost;
  settled: boolean;
  succeed(): void;
  fail(error: Error): void;
}

/** A model whose hosts start when a test says so. */
function setUp({ heedsSignal = false } = {}) {
  const starts: Start[] = [];
  const crashes: ManagerError[] = [];
  const startHost = (signal: AbortSignal) =>
    new Promise<ModelHost>((resolve, reject) => {
      const host = new FakeHost();
      const settle = (outcome: () => void) => () => {
        start.settled = true;
        outcome();
      };
      const start: Start = {
        signal,
        host,
        settled: false,
        succeed: settle(() => resolve(host)),
        fail: (error) => settle(() => reject(error))(),
      };
      if (heedsSignal) signal.addEventListener('abort', () => start.fail(signal.reason));
      starts.push(start);
    });
  const model = new ManagedModel('m', startHost, (error) => crashes.push(error));
  return { model, starts, crashes, nthStart: (index: number) => starts[index] as Start };
}

/** A model that is ready, and its host. */
async function setUpReady() {
  const { model, starts, crashes, nthStart } = setUp();
  const loading = model.load();
  nthStart(0).succeed();
  await loading;
  return { model, starts, crashes, nthStart, host: nthStart(0).host };
}

/** Lets everything that is due happen. */
function settle(): Promise<unknown> {
  return vi.advanceTimersByTimeAsync(0);
}

async function failure(work: Promise<unknown>): Promise<ManagerError> {
  const error = await work.then(
    () => expect.fail('nothing was thrown'),
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(ManagerError);
  return error;
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('loading', () => {
  it('is one start however many ask for the model', async () => {
    const { model, starts, nthStart } = setUp();
    const loads = Array.from({ length: 20 }, () => model.load());
    const leases = Array.from({ length: 20 }, () => model.acquire());
    expect(starts).toHaveLength(1);
    expect(model.state).toBe('LOADING');
    nthStart(0).succeed();
    expect(new Set(await Promise.all(loads))).toEqual(new Set([nthStart(0).host]));
    expect(await Promise.all(leases)).toHaveLength(20);
    expect(model.state).toBe('READY');
    expect(model.leases).toBe(20);
    await model.load();
    expect(starts).toHaveLength(1);
  });

  it('gives all who wait the same error when it fails, and the next one starts it again', async () => {
    const { model, starts, nthStart } = setUp();
    const waiting = [model.load(), model.acquire(), model.acquire(new AbortController().signal)];
    const broken = new ManagerError('MODEL_LOAD_FAILED', 'the file is damaged');
    nthStart(0).fail(broken);
    expect(await Promise.all(waiting.map(failure))).toEqual([broken, broken, broken]);
    expect(model.state).toBe('FAILED');
    expect(model.host).toBe(undefined);

    const lease = model.acquire();
    expect(starts).toHaveLength(2);
    expect(model.state).toBe('LOADING');
    nthStart(1).succeed();
    expect((await lease).model).toBe(nthStart(1).host.computeFn);
    expect(model.state).toBe('READY');
  });

  it('goes on when one who waits for it gives up', async () => {
    const { model, starts, nthStart } = setUp();
    const controller = new AbortController();
    const impatient = model.acquire(controller.signal);
    const patient = model.acquire();
    const reason = new Error('the deadline has passed');
    controller.abort(reason);
    await expect(impatient).rejects.toBe(reason);
    expect(nthStart(0).signal.aborted).toBe(false);
    nthStart(0).succeed();
    await patient;
    expect(starts).toHaveLength(1);
    expect(model.leases).toBe(1);
  });

  it('goes on, and its failure harms nobody, when all who wait for it give up', async () => {
    const { model, nthStart } = setUp();
    const controller = new AbortController();
    const waiting = model.acquire(controller.signal);
    controller.abort(new Error('gone'));
    await expect(waiting).rejects.toThrow('gone');
    nthStart(0).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged')); // unhandled, it would fail this test run
    await settle();
    expect(model.state).toBe('FAILED');
  });

  it('does not begin for a request that is over already', async () => {
    const { model, starts } = setUp();
    await expect(model.acquire(AbortSignal.abort(new Error('too late')))).rejects.toThrow('too late');
    expect(starts).toHaveLength(0);
  });

  it('leaves no listener on the signal of a request that waited', async () => {
    const { model, nthStart } = setUp();
    const { signal } = new AbortController();
    const add = vi.spyOn(signal, 'addEventListener');
    const remove = vi.spyOn(signal, 'removeEventListener');
    const lease = model.acquire(signal);
    nthStart(0).succeed();
    await lease;
    expect(remove.mock.calls).toEqual(add.mock.calls);
  });
});

describe('a lease', () => {
  it('counts until it is released, and once only', async () => {
    const { model, host } = await setUpReady();
    const one = await model.acquire();
    const other = await model.acquire();
    expect(one.model).toBe(host.computeFn);
    expect(model.leases).toBe(2);
    one.release();
    one.release();
    expect(model.leases).toBe(1);
    await other[Symbol.asyncDispose]();
    expect(model.leases).toBe(0);
  });
});

describe('unloading', () => {
  it('waits for the leases that are out, then ends the host', async () => {
    const { model, host } = await setUpReady();
    const one = await model.acquire();
    const other = await model.acquire();
    const unloading = model.unload(MINUTE_MS);
    await vi.advanceTimersByTimeAsync(MINUTE_MS / 2);
    expect(model.state).toBe('DRAINING');
    one.release();
    await settle();
    expect(host.stops).toBe(0);
    other.release();
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 1000 });
    expect(host.stops).toBe(1);
    expect(model.state).toBe('UNLOADED');
    expect(model.host).toBe(undefined);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('cuts off what takes longer than graceMs', async () => {
    const { model, host } = await setUpReady();
    const lease = await model.acquire();
    const unloading = model.unload(MINUTE_MS);
    await vi.advanceTimersByTimeAsync(MINUTE_MS - 1);
    expect(host.stops).toBe(0);
    await vi.advanceTimersByTimeAsync(1);
    expect(await unloading).toEqual({ interrupted: 1, reclaimedBytes: 1000 });
    expect(host.stops).toBe(1);
    lease.release();
    expect(model.leases).toBe(0);
    expect(model.state).toBe('UNLOADED');
  });

  it.each([Number.POSITIVE_INFINITY, 2 ** 31])('waits as long as it may with a graceMs of %d', async (graceMs) => {
    const { model, host } = await setUpReady();
    const lease = await model.acquire();
    const unloading = model.unload(graceMs);
    await vi.advanceTimersByTimeAsync(24 * 60 * MINUTE_MS);
    expect(host.stops).toBe(0);
    lease.release();
    expect((await unloading).interrupted).toBe(0);
  });

  it('refuses new leases from its first moment on', async () => {
    const { model, starts } = await setUpReady();
    const lease = await model.acquire();
    const unloading = model.unload(MINUTE_MS);
    const error = await failure(model.acquire());
    expect(error.code).toBe('MODEL_DRAINING');
    expect(error.toCommError()).toMatchObject({ code: 'UNAVAILABLE', reason: 'MODEL_DRAINING', retryable: true });
    expect((await failure(model.load())).code).toBe('MODEL_DRAINING');
    lease.release();
    await unloading;
    expect((await failure(model.acquire())).code).toBe('MODEL_DRAINING');
    expect(starts).toHaveLength(1);
  });

  it('refuses even a request that came the moment before', async () => {
    const { model, host } = await setUpReady();
    const request = failure(model.acquire());
    const unloading = model.unload(MINUTE_MS);
    expect((await request).code).toBe('MODEL_DRAINING');
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 1000 });
    expect(host.stops).toBe(1);
  });

  it('waits for leases although there was a time without any', async () => {
    const { model, host } = await setUpReady();
    (await model.acquire()).release();
    const lease = await model.acquire();
    const unloading = model.unload(MINUTE_MS);
    await settle();
    expect(host.stops).toBe(0);
    lease.release();
    expect((await unloading).interrupted).toBe(0);
  });

  it('harms nobody when the request that it refuses is over already', async () => {
    const { model } = await setUpReady();
    await model.unload(0);
    await expect(model.acquire(AbortSignal.abort(new Error('too late')))).rejects.toThrow('too late');
  });

  it('can be hurried, but not slowed down, by asking for it again', async () => {
    const { model, host } = await setUpReady();
    await model.acquire();
    const slow = model.unload(MINUTE_MS);
    const slower = model.unload(2 * MINUTE_MS);
    const quick = model.unload(10);
    await vi.advanceTimersByTimeAsync(10);
    const outcome = { interrupted: 1, reclaimedBytes: 1000 };
    expect(await Promise.all([slow, slower, quick])).toEqual([outcome, outcome, outcome]);
    expect(host.stops).toBe(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('leaves the model unloaded even when its host fails to end', async () => {
    const { model, host } = await setUpReady();
    host.stop = () => Promise.reject(new Error('dispose failed'));
    await expect(model.unload(0)).rejects.toThrow('dispose failed');
    expect(model.state).toBe('UNLOADED');
    expect(model.host).toBe(undefined);
  });
});

describe('unloading while the model is loaded', () => {
  it('gives up a start that can be given up', async () => {
    const { model, nthStart } = setUp({ heedsSignal: true });
    const waiting = [model.load(), model.acquire()];
    const unloading = model.unload(MINUTE_MS);
    const errors = await Promise.all(waiting.map(failure));
    expect(errors.map(({ code }) => code)).toEqual(['MODEL_DRAINING', 'MODEL_DRAINING']);
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect(model.state).toBe('UNLOADED');
    expect(nthStart(0).host.stops).toBe(0);
  });

  it('ends the host of a start that comes to its end all the same, and no one gets it', async () => {
    const { model, nthStart } = setUp();
    const waiting = [model.load(), model.acquire()];
    const unloading = model.unload(0);
    await settle();
    expect(model.state).toBe('DRAINING');
    nthStart(0).succeed();
    const errors = await Promise.all(waiting.map(failure));
    expect(errors.map(({ code }) => code)).toEqual(['MODEL_DRAINING', 'MODEL_DRAINING']);
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 1000 });
    expect(nthStart(0).host.stops).toBe(1);
    expect(model.state).toBe('UNLOADED');
  });

  it('does without a host when the start fails', async () => {
    const { model, nthStart } = setUp();
    const waiting = failure(model.load());
    const unloading = model.unload(0);
    nthStart(0).fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
    expect((await waiting).code).toBe('MODEL_LOAD_FAILED');
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect(model.state).toBe('UNLOADED');
  });
});

describe('a crash', () => {
  it('is told once, and the next lease starts a new host', async () => {
    const { model, starts, crashes, nthStart, host } = await setUpReady();
    const old = await model.acquire();
    host.crash();
    await settle();
    expect(model.state).toBe('FAILED');
    expect(model.host).toBe(undefined);
    expect(model.info).toEqual({});
    expect(crashes.map(({ code }) => code)).toEqual(['MODEL_CRASHED']);
    expect(starts).toHaveLength(1);

    const leases = Promise.all([model.acquire(), model.acquire()]);
    expect(starts).toHaveLength(2);
    nthStart(1).succeed();
    const [fresh] = await leases;
    expect(fresh.model).toBe(nthStart(1).host.computeFn);
    expect(model.state).toBe('READY');
    expect(model.leases).toBe(3);
    old.release();
    expect(model.leases).toBe(2);
  });

  it('right after the start is no reason to say that the model is being unloaded', async () => {
    const { model, nthStart } = setUp();
    const waiting = model.acquire();
    nthStart(0).host.crash();
    nthStart(0).succeed();
    const lease = await waiting; // of the dead host, which answers with its crash
    expect(lease.model).toBe(nthStart(0).host.computeFn);
    await settle();
    expect(model.state).toBe('FAILED');
  });

  it('while the model is being unloaded ends the wait with its leases, and nothing is started', async () => {
    const { model, starts, crashes, host } = await setUpReady();
    const lease = await model.acquire();
    const unloading = model.unload(MINUTE_MS);
    host.crash();
    await settle();
    expect(model.state).toBe('DRAINING');
    expect(crashes).toHaveLength(1);
    lease.release();
    expect(await unloading).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect(model.state).toBe('UNLOADED');
    expect(starts).toHaveLength(1);
  });

  it('before the model is unloaded leaves nothing to end', async () => {
    const { model, host } = await setUpReady();
    host.crash();
    await settle();
    expect(await model.unload(MINUTE_MS)).toEqual({ interrupted: 0, reclaimedBytes: 0 });
    expect(host.stops).toBe(0);
    expect(model.state).toBe('UNLOADED');
  });
});

describe('whatever happens in whatever order', () => {
  type Command =
    | { readonly type: 'acquire' | 'load' | 'start succeeds' | 'start fails' | 'crash' }
    | { readonly type: 'abort a waiter' | 'release'; readonly which: number }
    | { readonly type: 'unload'; readonly graceMs: number }
    | { readonly type: 'time passes'; readonly ms: number };

  const which = fc.nat({ max: 3 });
  const commandCount = { maxLength: 60, size: 'max' } as const;
  const command: fc.Arbitrary<Command> = fc.oneof(
    { weight: 6, arbitrary: fc.record({ type: fc.constant('acquire' as const) }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('load' as const) }) },
    { weight: 6, arbitrary: fc.record({ type: fc.constant('start succeeds' as const) }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('start fails' as const) }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('crash' as const) }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('abort a waiter' as const), which }) },
    { weight: 5, arbitrary: fc.record({ type: fc.constant('release' as const), which }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('unload' as const), graceMs: fc.constantFrom(0, 5, 50) }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant('time passes' as const), ms: fc.constantFrom(1, 5, 100) }) },
  );

  interface Waiter {
    readonly controller: AbortController;
    /** How it ended: `lease`, or the error's code; absent while it waits. */
    outcome?: string;
  }

  /** Carries out commands, and knows what a model that is right must agree with. */
  class Session {
    readonly waiters: Waiter[] = [];
    readonly #setUp: ReturnType<typeof setUp>;
    readonly #handedOut = new Set<FakeHost>();
    readonly #leases: ModelLease[] = [];
    #unloadBegan = false;
    #unloaded = false;
    /** When the shortest patience of all that want the model unloaded ends. */
    #patientUntilMs = Number.POSITIVE_INFINITY;

    constructor(heedsSignal: boolean) {
      this.#setUp = setUp({ heedsSignal });
    }

    get model(): ManagedModel {
      return this.#setUp.model;
    }

    /** Starts that are under way. */
    get starting(): Start[] {
      return this.#setUp.starts.filter(({ settled }) => !settled);
    }

    get living(): FakeHost[] {
      return [...this.#handedOut].filter(({ alive }) => alive);
    }

    get waiting(): Waiter[] {
      return this.waiters.filter(({ outcome }) => outcome === undefined);
    }

    do(command: Command): void {
      const [start] = this.starting;
      switch (command.type) {
        case 'acquire':
          this.#acquire();
          break;
        case 'load':
          this.model.load().catch(() => {});
          break;
        case 'start succeeds':
          if (start) this.#handedOut.add(start.host);
          start?.succeed();
          break;
        case 'start fails':
          start?.fail(new ManagerError('MODEL_LOAD_FAILED', 'damaged'));
          break;
        case 'crash':
          this.living[0]?.crash();
          break;
        case 'abort a waiter':
          this.waiting[command.which]?.controller.abort(new ManagerError('SHUT_DOWN', 'the caller is gone'));
          break;
        case 'release':
          this.#leases.splice(command.which, 1)[0]?.release();
          break;
        case 'unload':
          this.#unload(command.graceMs);
          break;
        case 'time passes':
          vi.advanceTimersByTime(command.ms);
      }
    }

    check(): void {
      const { model, starting, living } = this;
      expect(starting.length + living.length, 'hosts at a time').toBeLessThanOrEqual(1);
      expect(model.host, 'the host').toBe(living[0]);
      expect(model.leases, 'leases').toBe(this.#leases.length);
      for (const host of this.#handedOut) expect(host.stops, 'stops of one host').toBeLessThanOrEqual(1);
      if (starting.length === 0) expect(this.waiting, 'who wait for nothing').toEqual([]);
      expect(model.state).toBe(this.#state());
    }

    #state(): string {
      const patient = Date.now() < this.#patientUntilMs;
      if (this.#unloadBegan && this.starting.length === 0 && (this.#leases.length === 0 || !patient))
        this.#unloaded = true;
      if (this.#unloaded) return 'UNLOADED';
      if (this.#unloadBegan) return 'DRAINING';
      if (this.living.length > 0) return 'READY';
      return this.starting.length > 0 || this.#setUp.starts.length === 0 ? 'LOADING' : 'FAILED';
    }

    #acquire(): void {
      const waiter: Waiter = { controller: new AbortController() };
      this.waiters.push(waiter);
      void this.model.acquire(waiter.controller.signal).then(
        (lease) => {
          waiter.outcome = this.#unloadBegan ? 'a lease of a model that is being unloaded' : 'lease';
          this.#leases.push(lease);
        },
        (error: ManagerError) => {
          waiter.outcome = error.code;
        },
      );
    }

    #unload(graceMs: number): void {
      this.#unloadBegan = true;
      this.#patientUntilMs = Math.min(this.#patientUntilMs, Date.now() + graceMs);
      void this.model.unload(graceMs).then(({ interrupted }) => {
        if (Date.now() < this.#patientUntilMs) expect(interrupted, 'cut off before their time').toBe(0);
      });
    }
  }

  it('there is one host at a time, nobody gets an unloaded model or is forgotten, and nothing is left behind', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(command, commandCount), fc.boolean(), async (commands, heedsSignal) => {
        const session = new Session(heedsSignal);
        for (const next of commands) {
          session.do(next);
          await settle();
          session.check();
        }
        const remaining: Command[] = [
          { type: 'unload', graceMs: 0 },
          { type: 'start succeeds' },
          { type: 'time passes', ms: 1 },
        ];
        for (const next of remaining) {
          session.do(next);
          await settle();
        }
        session.check();
        expect(session.model.state).toBe('UNLOADED');
        expect(session.living).toEqual([]);
        expect(session.starting).toEqual([]);
        expect(session.waiting).toEqual([]);
        const outcomes = new Set(session.waiters.map(({ outcome }) => outcome));
        expect(['lease', 'MODEL_LOAD_FAILED', 'MODEL_DRAINING', 'SHUT_DOWN']).toEqual(
          expect.arrayContaining([...outcomes]),
        );
        expect(vi.getTimerCount()).toBe(0);
      }),
      { numRuns: 300 },
    );
  });
});
