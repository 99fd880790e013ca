import { getEventListeners } from 'node:events';
import { fileURLToPath } from 'node:url';
import {
  AsyncModelComputeFunction,
  CommError,
  type ComputeFunction,
  callContext,
  type Tensor,
  type Tensors,
  tensor,
  WorkerExecutor,
  type WorkerExecutorOptions,
} from '@splitlearn/comm';
import { loopback } from '@splitlearn/comm/testing';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BARRIER, BEGUN, DISPOSED, ENDED, PRODUCED } from './fixtures/counters.mjs';
import { allBits, tensors } from './support/arbitraries.js';
import { Counters } from './support/counters.js';
import { collect, rejection } from './support/deferred.js';
import { modelCall } from './support/model-calls.js';
import { withoutWaiting } from './support/time.js';

// Threads run real files, so this is the built package.

const VERSATILE = fixture('versatile-model');
const inputs = { x: tensor([1, 2, 3]) };
const executors: WorkerExecutor[] = [];
let counters: Counters;

function fixture(name: string): URL {
  return new URL(`./fixtures/${name}.mjs`, import.meta.url);
}

/** An executor that runs the versatile model, and is stopped after the test. */
async function started(
  options: Partial<WorkerExecutorOptions> & { data?: object } = {},
  model: string | URL = VERSATILE,
) {
  const executor = new WorkerExecutor({ threads: 1, ...options, data: { counters: counters.memory, ...options.data } });
  executors.push(executor);
  await executor.start(model);
  return executor;
}

/** A call that asks the versatile model to do something. */
function to(action: string, options: { signal?: AbortSignal; [parameter: string]: unknown } = {}) {
  const { signal, ...parameters } = options;
  return modelCall({ parameters: { do: action, ...parameters } as never, ...(signal && { signal }) });
}

function count(executed: { outputs: Tensors }): number {
  return (executed.outputs.n as Tensor<'int32'>).data[0] as number;
}

beforeEach(() => {
  counters = new Counters();
});
afterEach(async () => {
  await Promise.allSettled(executors.splice(0).map((executor) => executor.stop()));
});

describe('running', () => {
  it('gives the model its tensors, and gives back its own, bit for bit', async () => {
    const executor = await started();
    await fc.assert(
      fc.asyncProperty(tensors, async (given) => {
        const before = allBits(given);
        const { outputs } = await executor.run(given, to('echo'));
        expect(allBits(outputs)).toEqual(before);
        expect(allBits(given)).toEqual(before);
      }),
      { numRuns: 60 },
    );
  });

  it('happens in as many threads as there are, at once', async () => {
    const executor = await started({ threads: 2 });
    // Each blocks its thread until the other is there: one thread alone would never come out.
    await Promise.all([
      executor.run(inputs, to('meet', { threads: 2 })),
      executor.run(inputs, to('meet', { threads: 2 })),
    ]);
  });

  it('does not hold up this thread', async () => {
    const executor = await started();
    const blocked = executor.run(inputs, to('meet', { threads: 2 }));
    await counters.reaches(BARRIER, 1);
    Atomics.add(counters.memory, BARRIER, 1);
    Atomics.notify(counters.memory, BARRIER);
    await blocked;
  });

  it('happens one call after the other in a thread, and says how long each waited', async () => {
    const executor = await started();
    const runs = await Promise.all([1, 2, 3].map(() => executor.run(inputs, to('count'))));
    expect(runs.map(count)).toEqual([1, 2, 3]);
    const [first, second, third] = runs.map(({ queueMs }) => queueMs);
    expect(first).toBeLessThan(second ?? 0);
    expect(second).toBeLessThan(third ?? 0);
    for (const { computeMs } of runs) expect(computeMs).toBeGreaterThanOrEqual(0);
  });

  it('gives every thread a model of its own, made of the data', async () => {
    const executor = await started({ threads: 2, data: { text: { nested: [1, 'b'] } } });
    const { outputs } = await executor.run(inputs, to('data'));
    expect(outputs.text?.data).toEqual(['{"nested":[1,"b"]}']);
  });

  it('says what the model says of itself', async () => {
    const executor = new WorkerExecutor({ threads: 2, data: { text: 'abc' } });
    executors.push(executor);
    expect(await executor.start(VERSATILE)).toEqual({ attributes: { data: 'abc' } });
  });

  it.each([
    ['a URL', fixture('plain-model')],
    ['a URL as text', fixture('plain-model').href],
    ['a path', fileURLToPath(fixture('plain-model'))],
  ])('takes a model by %s', async (_, source) => {
    const executor = await started({}, source);
    expect((await executor.run(inputs, modelCall())).outputs).toEqual(inputs);
    expect((await collect(executor.stream(inputs, modelCall()))).map(({ outputs }) => outputs)).toEqual([inputs]);
  });

  it('refuses more than may wait', async () => {
    const executor = await started({ maxQueue: 1 });
    const controller = new AbortController();
    const running = rejection(executor.run(inputs, to('wait', { signal: controller.signal })));
    const waiting = executor.run(inputs, to('echo'));
    expect(await rejection(executor.run(inputs, to('echo')))).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      reason: 'QUEUE_FULL',
      retryAfterMs: expect.any(Number),
    });
    controller.abort();
    await running;
    await waiting;
  });
});

describe('a tensor', () => {
  it('of one’s own is never taken away, also where it is a Buffer', async () => {
    const executor = await started();
    const own = {
      floats: tensor([1, 2]),
      pooled: tensor(Buffer.from('pooled')),
      large: tensor(Buffer.alloc(1 << 20, 5)),
    };
    const before = allBits(own);
    for (let times = 0; times < 3; times++) await executor.run(own, to('echo'));
    expect(allBits(own)).toEqual(before);
  });

  it('of a received request moves to the thread, all of the message with it, and can be used once', async () => {
    const executor = await started();
    const seen: unknown[] = [];
    const twice: ComputeFunction = {
      async compute(request, { signal }) {
        const call = modelCall({ signal });
        const { outputs } = await executor.run(request.inputs, call);
        seen.push(Object.values(request.inputs).map(({ data }) => data.length));
        seen.push(await rejection(executor.run(request.inputs, call)));
        return { outputs };
      },
    };
    await using pair = await loopback(twice);
    const sent = { a: tensor(new Float64Array(1_000).fill(2)), b: tensor(new Float32Array(9).fill(3)) };
    expect(allBits(await pair.client.compute(sent))).toEqual(allBits(sent));
    expect(seen).toEqual([
      [0, 0],
      expect.objectContaining({
        code: 'FAILED_PRECONDITION',
        reason: 'TENSOR_MOVED',
        message: expect.stringContaining("tensor 'a' has already been handed to another thread"),
      }),
    ]);
  });

  it('that is empty can be received any number of times', async () => {
    const computeFn = new AsyncModelComputeFunction({ model: VERSATILE, executor: new WorkerExecutor({ threads: 1 }) });
    await using pair = await loopback(computeFn);
    const empty = { a: tensor(new Float32Array(), [0, 3]), b: tensor([1]), c: tensor(new Uint8Array()) };
    for (let times = 0; times < 3; times++) expect(allBits(await pair.client.compute(empty))).toEqual(allBits(empty));
    for (let times = 0; times < 3; times++)
      expect(allBits(await pair.client.compute({ a: empty.a }))).toEqual(allBits({ a: empty.a }));
  });

  it('that the model gives away arrives as any other', async () => {
    const executor = await started();
    for (let times = 0; times < 2; times++) {
      expect(allBits((await executor.run(inputs, to('movable'))).outputs)).toEqual(allBits(inputs));
    }
  });
});

describe('a thread that dies', () => {
  it.each([
    ['exit', 'the worker thread that ran the model ended with exit code 3; the next call gets a new thread'],
    ['crash', 'the worker thread that ran the model failed: out of the blue; the next call gets a new thread'],
  ])('by %s fails its call, and the next call has another', async (how, message) => {
    const executor = await started();
    const dying = rejection(executor.run(inputs, to(how)));
    const queued = executor.run(inputs, to('count'));
    expect(await dying).toMatchObject({ code: 'UNAVAILABLE', reason: 'WORKER_CRASHED', retryable: true, message });
    expect(count(await queued)).toBe(1);
    expect(count(await executor.run(inputs, to('count')))).toBe(2);
  });

  it('in the middle of a stream fails it after the pieces before', async () => {
    const executor = await started();
    let pieces = 0;
    const read = async () => {
      for await (const _ of executor.stream(inputs, to('', { pieces: 4, last: 'exit' }))) pieces++;
    };
    expect(await rejection(read())).toMatchObject({ reason: 'WORKER_CRASHED' });
    expect(pieces).toBe(4);
    await executor.run(inputs, to('echo'));
  });

  it('while its reader leaves a stream does not trouble the reader', async () => {
    const executor = await started();
    for await (const _ of executor.stream(inputs, to('', { pieces: 2, last: 'exit' }))) break;
    await executor.run(inputs, to('echo'));
  });

  it('while no call is under way troubles at most the next one', async () => {
    const executor = await started();
    expect((await executor.run(inputs, to('crashAfterwards'))).outputs).toEqual(inputs);
    // Whether the thread's end is known here already is a matter of luck.
    await Promise.allSettled([executor.run(inputs, to('echo'))]);
    expect(count(await executor.run(inputs, to('count')))).toBeLessThanOrEqual(2);
  });

  it('takes none of the others along', async () => {
    const executor = await started({ threads: 2 });
    const controller = new AbortController();
    const other = rejection(executor.run(inputs, to('wait', { signal: controller.signal })));
    expect(await rejection(executor.run(inputs, to('exit')))).toMatchObject({ reason: 'WORKER_CRASHED' });
    controller.abort(new CommError('CANCELLED', 'as planned'));
    expect(await other).toMatchObject({ message: 'as planned' });
  });

  it('does not begin the call that it is replaced for, where that is cancelled meanwhile', async () => {
    const executor = await started();
    await rejection(executor.run(inputs, to('exit')));
    const before = counters.get(BEGUN);
    const controller = new AbortController();
    const call = rejection(executor.run(inputs, to('echo', { signal: controller.signal })));
    await Promise.resolve();
    controller.abort();
    expect(await call).toMatchObject({ code: 'CANCELLED' });
    expect(counters.get(BEGUN)).toBe(before);
  });
});

describe('an error of the model', () => {
  it('that is a CommError keeps its code, reason and pushback', async () => {
    const executor = await started();
    const error = await rejection(executor.run(inputs, to('refuse')));
    expect(error).toBeInstanceOf(CommError);
    expect(error).toMatchObject({ code: 'OUT_OF_RANGE', message: 'too long', reason: 'TOO_LONG', retryAfterMs: 5 });
  });

  it('that is none keeps its message and stack, for the log', async () => {
    const executor = await started();
    const error = await rejection(executor.run(inputs, to('throw')));
    expect(error).not.toBeInstanceOf(CommError);
    expect(error).toMatchObject({
      message: 'the model says no',
      stack: expect.stringContaining('versatile-model.mjs'),
    });
  });

  it.each(['nothing', 'unclonable', 'throw', 'refuse'])('(%s) leaves the thread as it is', async (action) => {
    const executor = await started();
    await rejection(executor.run(inputs, to(action)));
    expect(count(await executor.run(inputs, to('count')))).toBe(2);
  });
});

describe('a model that cannot be loaded', () => {
  it.each<[string, string, object]>([
    ['is not there', 'no-such-module', { message: expect.stringContaining('no-such-module.mjs') }],
    ['throws', 'throwing-module', { message: 'this module cannot be loaded' }],
    [
      'is none',
      'no-model',
      {
        code: 'INVALID_ARGUMENT',
        message: expect.stringMatching(/^the default export of file:.*no-model\.mjs must be a model/),
      },
    ],
    ['refuses', 'refusing-factory', { code: 'NOT_FOUND', reason: 'NO_WEIGHTS' }],
    ['never comes', 'waiting-module', { reason: 'WORKER_CRASHED', message: expect.stringContaining('exit code 13') }],
  ])('because it %s fails the start, which may be tried again', async (_, name, expected) => {
    const executor = new WorkerExecutor({ threads: 2 });
    executors.push(executor);
    expect(await rejection(executor.start(fixture(name)))).toMatchObject(expected);
    expect(await rejection(executor.run(inputs, modelCall()))).toMatchObject({ code: 'FAILED_PRECONDITION' });
    await executor.start(fixture('plain-model'));
    await executor.run(inputs, modelCall());
  });

  it('fails the start of a server', async () => {
    const executor = new WorkerExecutor({ threads: 1 });
    const computeFn = new AsyncModelComputeFunction({ model: fixture('no-model'), executor });
    expect(await rejection(loopback(computeFn))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });
});

describe('cancelling', () => {
  it('tells the model why, in the middle of a run', async () => {
    const executor = await started();
    const controller = new AbortController();
    const call = rejection(executor.run(inputs, to('wait', { signal: controller.signal })));
    await counters.reaches(BEGUN, 1);
    controller.abort(new CommError('DEADLINE_EXCEEDED', 'late', { reason: 'WHY' }));
    expect(await call).toMatchObject({ code: 'DEADLINE_EXCEEDED', message: 'late', reason: 'WHY' });
    expect(count(await executor.run(inputs, to('count')))).toBe(2);
  });

  it('is CANCELLED to the model where the signal does not say why', async () => {
    const executor = await started();
    const controller = new AbortController();
    const call = rejection(executor.run(inputs, to('wait', { signal: controller.signal })));
    await counters.reaches(BEGUN, 1);
    controller.abort('enough');
    expect(await call).toMatchObject({ name: 'CommError', code: 'CANCELLED' });
  });

  it('ends a stream in its middle, and the model’s generator', async () => {
    const executor = await started();
    const controller = new AbortController();
    const pieces = executor.stream(inputs, to('', { pieces: 1e6, signal: controller.signal }))[Symbol.asyncIterator]();
    await pieces.next();
    controller.abort();
    const rest = async () => {
      while (!(await pieces.next()).done);
    };
    expect(await rejection(rest())).toMatchObject({ code: 'CANCELLED' });
    expect(counters.get(ENDED)).toBe(1);
    await executor.run(inputs, to('echo'));
  });

  it('leaves no listener on a signal that many calls share', async () => {
    const executor = await started();
    const { signal } = new AbortController();
    await Promise.all(Array.from({ length: 30 }, () => executor.run(inputs, to('echo', { signal }))));
    await Promise.all(Array.from({ length: 5 }, () => collect(executor.stream(inputs, to('', { signal })))));
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });
});

describe('streaming', () => {
  it('yields the pieces in their order, and where their time went', async () => {
    const executor = await started();
    const pieces = await collect(executor.stream(inputs, to('', { pieces: 100 })));
    expect(pieces.map(count)).toEqual(Array.from({ length: 100 }, (_, index) => index));
    for (const { queueMs, computeMs } of pieces) expect(queueMs + computeMs).toBeGreaterThanOrEqual(0);
  });

  it('gives the pieces as they were when they were yielded, whatever the model does with their memory then', async () => {
    const executor = await started();
    const pieces = await collect(executor.stream(inputs, to('', { pieces: 50, reuse: true })));
    expect(pieces.map(count)).toEqual(Array.from({ length: 50 }, (_, index) => index));
  });

  it.each([1, 2, 5])('gives %i pieces to the reader while the model waits before the next', async (pieces) => {
    const executor = await started();
    let read = 0;
    for await (const _ of executor.stream(inputs, to('', { pieces, last: 'wait' }))) if (++read === pieces) break;
    expect(read).toBe(pieces);
  });

  it('lets the model be no more than a window ahead of its reader', async () => {
    const executor = await started();
    let read = 0;
    for await (const _ of executor.stream(inputs, to('', { pieces: 200 }))) {
      read++;
      // 32 that wait to be read, and one that is being made.
      expect(counters.get(PRODUCED) - read).toBeLessThanOrEqual(33);
      if (read === 1) await counters.reaches(PRODUCED, 32);
    }
    expect(read).toBe(200);
  });

  it('ends the model’s generator when its reader leaves, and the thread is free', async () => {
    const executor = await started();
    for await (const _ of executor.stream(inputs, to('', { pieces: 1e6 }))) break;
    expect(counters.get(ENDED)).toBe(1);
    expect(counters.get(PRODUCED)).toBeLessThan(100);
    await executor.run(inputs, to('echo'));
    expect(await collect(executor.stream(inputs, to('', { pieces: 40 })))).toHaveLength(40);
  });

  it('reports an error after the pieces before it', async () => {
    const executor = await started();
    let pieces = 0;
    const read = async () => {
      for await (const _ of executor.stream(inputs, to('', { pieces: 5, last: 'refuse' }))) pieces++;
    };
    expect(await rejection(read())).toMatchObject({ code: 'OUT_OF_RANGE' });
    expect(pieces).toBe(5);
  });

  it('works over a server, where a reader who leaves frees the thread', async () => {
    const executor = new WorkerExecutor({ threads: 1, data: { counters: counters.memory } });
    await using pair = await loopback(new AsyncModelComputeFunction({ model: VERSATILE, executor }));
    const request = { inputs, parameters: { pieces: 1e6 } };
    for await (const _ of pair.client.stream([request])) break;
    await counters.reaches(ENDED, 1);
    expect(
      await collect(
        pair.client.stream([
          { inputs, parameters: { pieces: 4 } },
          { inputs, parameters: { pieces: 2 } },
        ]),
      ),
    ).toHaveLength(6);
  });
});

describe('stopping', () => {
  it('lets runs finish, refuses those that wait, and disposes of every thread’s model', async () => {
    const executor = await started({ threads: 2 });
    const running = executor.run(inputs, to('meet', { threads: 2 }));
    await counters.reaches(BARRIER, 1);
    const other = executor.run(inputs, to('meet', { threads: 3 }));
    const waiting = executor.run(inputs, to('echo'));
    const stopping = executor.stop();
    expect(await rejection(waiting)).toMatchObject({ code: 'UNAVAILABLE', reason: 'STOPPING' });
    await running;
    expect(counters.get(DISPOSED)).toBe(0);
    Atomics.add(counters.memory, BARRIER, 1);
    Atomics.notify(counters.memory, BARRIER);
    await other;
    await stopping;
    expect(counters.get(DISPOSED)).toBe(2);
    expect(await rejection(executor.run(inputs, to('echo')))).toMatchObject({ reason: 'STOPPING' });
  });

  it('may be done twice', async () => {
    const executor = await started();
    await Promise.all([executor.stop(), executor.stop()]);
    await executor.stop();
    expect(counters.get(DISPOSED)).toBe(1);
  });

  it('throws what a model throws when it is disposed of, after all threads have ended', async () => {
    const executor = await started({ threads: 2, data: { dispose: 'throw' } });
    expect(await rejection(executor.stop())).toMatchObject({ message: 'cannot let go' });
    expect(counters.get(DISPOSED)).toBe(2);
  });

  it('ends a thread whose model takes too long to dispose of', async () => {
    const executor = await started({ data: { dispose: 'hang' } });
    await withoutWaiting(() => executor.stop());
  });

  it('ends a thread whose run was cancelled and goes on', async () => {
    const executor = await started();
    const controller = new AbortController();
    const hanging = rejection(executor.run(inputs, to('hang', { signal: controller.signal })));
    await counters.reaches(BEGUN, 1);
    controller.abort();
    await withoutWaiting(() => executor.stop());
    expect(await hanging).toMatchObject({ reason: 'WORKER_CRASHED' });
  });

  it('a server with a model that goes on ends its thread, and tells the caller', async () => {
    const executor = new WorkerExecutor({ threads: 1, data: { counters: counters.memory } });
    const logger = { warn: vi.fn(), error: vi.fn() };
    const computeFn = new AsyncModelComputeFunction({ model: VERSATILE, executor });
    await using pair = await loopback(computeFn, { server: { logger } });
    const call = rejection(pair.client.compute(inputs, { parameters: { do: 'hang' } }));
    await counters.reaches(BEGUN, 1);
    await withoutWaiting(() => pair.server.stop({ graceMs: 0 }));
    expect(await call).toMatchObject({ code: 'UNAVAILABLE', reason: 'STOPPING' });
    expect(logger.warn).toHaveBeenCalledOnce();
  });

  it('before starting does nothing', async () => {
    await new WorkerExecutor({ threads: 1 }).stop();
  });
});

describe('an executor', () => {
  it.each([0, -1, 1.5, Number.NaN, undefined, '2'])('cannot have %s threads', (threads) => {
    expect(() => new WorkerExecutor({ threads: threads as number })).toThrow(
      expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: `threads must be an integer of 1 or more; it is ${threads}`,
      }),
    );
  });

  it('runs nothing before it was started', async () => {
    const executor = new WorkerExecutor({ threads: 1 });
    expect(await rejection(executor.run(inputs, modelCall()))).toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: 'this WorkerExecutor has not been started',
    });
  });

  it('runs one model in its life', async () => {
    const executor = await started();
    expect(await rejection(executor.start(VERSATILE))).toMatchObject({ code: 'FAILED_PRECONDITION' });
  });

  it('can be called without a server', async () => {
    const computeFn = new AsyncModelComputeFunction({ model: VERSATILE, executor: new WorkerExecutor({ threads: 1 }) });
    await computeFn.setup();
    const response = await computeFn.compute({ inputs }, callContext({ timeoutMs: 60_000 }));
    expect(allBits(response.outputs)).toEqual(allBits(inputs));
    await computeFn.teardown();
  });
});
