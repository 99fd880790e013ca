import { getEventListeners } from 'node:events';
import {
  AsyncModelComputeFunction,
  type CallContext,
  CommError,
  type ComputeFunction,
  SerialExecutor,
  tensor,
  WorkerExecutor,
} from '@splitlearn/comm';
import { loopback as overTcp } from '@splitlearn/comm/testing';
import { describe, expect, it, vi } from 'vitest';
import { abortReason, collect, type Deferred, deferred, rejection } from './support/deferred.js';
import { echo, requestThenSilence, streaming, valueAt } from './support/functions.js';
import { GatedModel } from './support/gated-model.js';
import { http2Call } from './support/raw-client.js';
import { transports } from './support/transports.js';

vi.mock('../dist/grpc/internals.js', { spy: true });

const input = tensor([1]);

/** A compute function that works until its signal is aborted, and tells the test of both. */
class Patient implements ComputeFunction {
  readonly begun: Deferred<CallContext> = deferred();
  readonly reason: Deferred<unknown> = deferred();

  async compute(_: unknown, context: CallContext): Promise<never> {
    this.begun.resolve(context);
    const reason = await abortReason(context.signal);
    this.reason.resolve(reason);
    throw reason;
  }
}

describe.each(transports)('over $name', ({ loopback, exchange }) => {
  describe('a call', () => {
    it('that its caller cancels is CANCELLED on both sides', async () => {
      const patient = new Patient();
      await using pair = await loopback(patient);
      const controller = new AbortController();
      const call = pair.client.compute(input, { signal: controller.signal });
      const { signal } = await patient.begun.promise;
      expect(signal.aborted).toBe(false);
      controller.abort('enough');
      expect(await rejection(call)).toMatchObject({ name: 'CommError', code: 'CANCELLED', cause: 'enough' });
      const reason = await patient.reason.promise;
      expect(reason).toBeInstanceOf(CommError);
      expect(reason).toMatchObject({
        code: 'CANCELLED',
        message: 'the caller cancelled the call, or its connection was lost',
      });
    });

    it('whose time is up is DEADLINE_EXCEEDED to its caller, and ends on the server', async () => {
      const patient = new Patient();
      await using pair = await loopback(patient);
      await pair.client.connect();
      expect(await rejection(pair.client.compute(input, { timeoutMs: 300 }))).toMatchObject({
        code: 'DEADLINE_EXCEEDED',
        message: expect.stringContaining(`${pair.client.address} gave no answer in time`),
      });
      // Of a gRPC call the server only sees that it ends, and has to guess from the time that it was the deadline.
      const reason = await patient.reason.promise;
      expect(reason).toBeInstanceOf(CommError);
      if (exchange)
        expect(reason).toMatchObject({ code: 'DEADLINE_EXCEEDED', message: "the caller's deadline has passed" });
    });

    it('whose time is up while it waits never runs', async () => {
      const model = new GatedModel();
      await using pair = await loopback(new AsyncModelComputeFunction({ model, executor: new SerialExecutor() }));
      const first = pair.client.compute({});
      await model.at(0).begun.promise;
      expect(await rejection(pair.client.compute({}, { timeoutMs: 50 }))).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
      // Round trips on the same connection: the server knows by now.
      for (let times = 0; times < 5; times++) await pair.client.getServiceInfo();
      const third = pair.client.compute({});
      model.at(0).answer.resolve({});
      await first;
      await model.at(1).begun.promise;
      model.at(1).answer.resolve({});
      await third;
      expect(model.count).toBe(2);
    });

    it('knows its deadline, and that it has none', async () => {
      const deadlines: (number | undefined)[] = [];
      await using pair = await loopback({
        async compute({ inputs }, { deadlineMs }) {
          deadlines.push(deadlineMs);
          return { outputs: inputs };
        },
      });
      const before = Date.now();
      await pair.client.compute(input, { timeoutMs: 30_000 });
      await pair.client.compute(input, { timeoutMs: Number.POSITIVE_INFINITY });
      await pair.client.compute(input, { timeoutMs: 60 * 24 * 3_600_000 });
      await pair.client.compute(input, { timeoutMs: Number.MAX_VALUE });
      const [first, ...others] = deadlines;
      expect(Number(first) - before).toBeGreaterThanOrEqual(30_000);
      expect(Number(first) - before).toBeLessThan(40_000);
      expect(others).toEqual([undefined, undefined, undefined]);
    });

    it('has 60 seconds unless the client or the call says otherwise', async () => {
      const timeouts: number[] = [];
      const noting: ComputeFunction = {
        async compute({ inputs }, { deadlineMs }) {
          timeouts.push(Number(deadlineMs) - Date.now());
          return { outputs: inputs };
        },
      };
      for (const client of [{}, { timeoutMs: 20_000 }]) {
        await using pair = await loopback(noting, { client });
        await pair.client.compute(input);
      }
      expect(Math.abs((timeouts[0] ?? 0) - 60_000)).toBeLessThan(5_000);
      expect(Math.abs((timeouts[1] ?? 0) - 20_000)).toBeLessThan(5_000);
    });

    it('without any time left is not made', async () => {
      let computed = false;
      await using pair = await loopback({
        async compute({ inputs }) {
          computed = true;
          return { outputs: inputs };
        },
      });
      expect(await rejection(pair.client.compute(input, { timeoutMs: 0 }))).toMatchObject({
        code: 'DEADLINE_EXCEEDED',
      });
      await pair.server.stop();
      expect(computed).toBe(false);
    });

    it.each([Number.NaN, -1, '5'])('cannot have a timeout of %s', async (timeoutMs) => {
      await using pair = await loopback(echo);
      const options = { timeoutMs: timeoutMs as number };
      const invalid = {
        code: 'INVALID_ARGUMENT',
        message: `timeoutMs must be 0 or more milliseconds; it is ${timeoutMs}`,
      };
      expect(await rejection(pair.client.compute(input, options))).toMatchObject(invalid);
      expect(await rejection(pair.client.connect(options))).toMatchObject(invalid);
      expect(await rejection(pair.client.healthCheck('', options))).toMatchObject(invalid);
      expect(await rejection(collect(pair.client.stream([], options)))).toMatchObject(invalid);
      expect(pair.client.getStatistics().inFlight).toBe(0);
    });

    it('that is cancelled before it is made is not made', async () => {
      let computed = false;
      await using pair = await loopback({
        async compute({ inputs }) {
          computed = true;
          return { outputs: inputs };
        },
      });
      const reason = new CommError('UNAVAILABLE', 'my own server stops');
      expect(await rejection(pair.client.compute(input, { signal: AbortSignal.abort(reason) }))).toBe(reason);
      expect(
        await rejection(collect(pair.client.stream([{ inputs: {} }], { signal: AbortSignal.abort(reason) }))),
      ).toBe(reason);
      await pair.server.stop();
      expect(computed).toBe(false);
    });

    it('that was answered is never aborted afterwards', async () => {
      const signals: AbortSignal[] = [];
      await using pair = await loopback({
        async compute({ inputs }, { signal }) {
          signals.push(signal);
          return { outputs: inputs };
        },
      });
      await pair.client.compute(input);
      await collect(pair.client.stream([{ inputs: {} }]));
      await pair.server.stop();
      expect(signals.map(({ aborted }) => aborted)).toEqual([false, false]);
    });

    it('leaves no listener on a signal that many calls share', async () => {
      await using pair = await loopback(echo);
      const { signal } = new AbortController();
      const calls = Array.from({ length: 50 }, () => pair.client.compute(input, { signal }));
      const streams = Array.from({ length: 20 }, () => collect(pair.client.stream([{ inputs: {} }], { signal })));
      await Promise.all([...calls, ...streams]);
      expect(getEventListeners(signal, 'abort')).toEqual([]);
    });
  });

  describe('a stream', () => {
    it('whose time is up is DEADLINE_EXCEEDED to its caller, and ends on the server', async () => {
      const reason = deferred<unknown>();
      await using pair = await loopback(
        streaming(async function* (_, { signal }) {
          reason.resolve(await abortReason(signal));
          yield { outputs: {} };
        }),
      );
      await pair.client.connect();
      const read = collect(pair.client.stream(requestThenSilence({}), { timeoutMs: 300 }));
      expect(await rejection(read)).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
      expect(await reason.promise).toBeInstanceOf(CommError);
    });

    it('that is cancelled while nobody reads it tells the server at once, and the reader when it reads', async () => {
      const reason = deferred<unknown>();
      await using pair = await loopback(
        streaming(async function* (_, { signal }) {
          yield { outputs: {} };
          reason.resolve(await abortReason(signal));
        }),
      );
      const controller = new AbortController();
      const responses = pair.client.stream(requestThenSilence({}), { signal: controller.signal });
      await responses.next();
      controller.abort();
      expect(await reason.promise).toMatchObject({ code: 'CANCELLED' });
      expect(await rejection(responses.next())).toMatchObject({
        code: 'CANCELLED',
        message: 'the call was cancelled by its caller',
      });
    });

    it('that is cancelled before its first request ends without having begun', async () => {
      let begun = false;
      await using pair = await loopback(
        streaming(async function* () {
          begun = true;
          yield { outputs: {} };
        }),
      );
      const controller = new AbortController();
      const asked = deferred();
      async function* silence(): AsyncGenerator<never> {
        asked.resolve();
        await new Promise(() => {});
      }
      const read = rejection(collect(pair.client.stream(silence(), { signal: controller.signal })));
      await asked.promise;
      controller.abort();
      expect(await read).toMatchObject({ code: 'CANCELLED' });
      await pair.server.stop();
      expect(begun).toBe(false);
    });
  });
});

describe('a deadline', () => {
  it('ends a call on the server, also where its caller forgets', async () => {
    const patient = new Patient();
    await using pair = await overTcp(patient);
    const call = http2Call(pair.port, 'Compute', { timeout: '50m' });
    expect(await patient.reason.promise).toMatchObject({
      code: 'DEADLINE_EXCEEDED',
      message: "the caller's deadline has passed",
    });
    expect(await call.outcome).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    call.close();
  });

  it('of a stream too', async () => {
    const reason = deferred<unknown>();
    await using pair = await overTcp(
      streaming(async function* (_, { signal }) {
        reason.resolve(await abortReason(signal));
        yield { outputs: {} };
      }),
    );
    const call = http2Call(pair.port, 'ComputeStream', { timeout: '50m', end: false });
    expect(await reason.promise).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    expect(await call.outcome).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    call.close();
  });
});

/** Puts a compute function behind a window: the test sees calls arrive, and how they end. */
function watched(inner: ComputeFunction) {
  const calls: { readonly arrived: Deferred<void>; readonly ended: Deferred<unknown> }[] = [];
  const at = (index: number) => {
    calls[index] ??= { arrived: deferred(), ended: deferred() };
    return calls[index];
  };
  let count = 0;
  const computeFn: ComputeFunction = {
    setup: async () => inner.setup?.(),
    teardown: async () => inner.teardown?.(),
    async compute(request, context) {
      const { arrived, ended } = at(count++);
      const answer = inner.compute(request, context);
      answer.then(() => ended.resolve(undefined), ended.resolve);
      arrived.resolve();
      return answer;
    },
  };
  return { computeFn, at };
}

describe('a call that waits in the queue', () => {
  it.each(['CANCELLED', 'DEADLINE_EXCEEDED'])('of a SerialExecutor never runs when it is %s', async (code) => {
    const model = new GatedModel();
    const { computeFn, at } = watched(new AsyncModelComputeFunction({ model, executor: new SerialExecutor() }));
    await using pair = await overTcp(computeFn);
    const first = pair.client.compute({});
    await model.at(0).begun.promise;
    if (code === 'CANCELLED') {
      const controller = new AbortController();
      const second = rejection(pair.client.compute({}, { signal: controller.signal }));
      await at(1).arrived.promise;
      controller.abort();
      expect(await second).toMatchObject({ code });
    } else {
      const second = http2Call(pair.port, 'Compute', { timeout: '50m' });
      expect(await second.outcome).toMatchObject({ code });
      second.close();
    }
    expect(await at(1).ended.promise).toMatchObject({
      code,
      message: expect.stringMatching(/ms in the queue; the work never began\)$/),
    });
    model.at(0).answer.resolve({});
    await first;
    const third = pair.client.compute({});
    await model.at(1).begun.promise;
    model.at(1).answer.resolve({});
    await third;
    expect(model.count).toBe(2);
  });

  it('of a WorkerExecutor never runs when it is cancelled', async () => {
    const model = new URL('./fixtures/versatile-model.mjs', import.meta.url);
    const { computeFn, at } = watched(
      new AsyncModelComputeFunction({ model, executor: new WorkerExecutor({ threads: 1 }) }),
    );
    await using pair = await overTcp(computeFn);
    const holding = new AbortController();
    const first = rejection(pair.client.compute({}, { parameters: { do: 'wait' }, signal: holding.signal }));
    await at(0).arrived.promise;
    const controller = new AbortController();
    const second = rejection(pair.client.compute({}, { signal: controller.signal }));
    await at(1).arrived.promise;
    controller.abort();
    expect(await at(1).ended.promise).toMatchObject({
      code: 'CANCELLED',
      message: expect.stringContaining('the work never began'),
    });
    await second;
    holding.abort();
    await first;
    expect(valueAt(await pair.client.compute({}, { parameters: { do: 'count' } }), 'n')).toBe(2);
  });
});
