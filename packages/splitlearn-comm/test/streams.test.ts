import {
  CommError,
  type ComputeRequest,
  type ComputeResponse,
  FixedDelay,
  type Tensors,
  tensor,
} from '@splitlearn/comm';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { abortReason, collect, deferred, rejection } from './support/deferred.js';
import { echo, RecordingLogger, requestsOf, requestThenSilence, streaming, valueAt } from './support/functions.js';
import { transports } from './support/transports.js';

vi.mock('../dist/grpc/internals.js', { spy: true });

const number = (value: number): Tensors => ({ x: tensor([value]) });
const PIECE_BYTES = 256 * 1024;
const large = (): Tensors => ({ x: tensor(new Uint8Array(PIECE_BYTES)) });

function values(responses: readonly ComputeResponse[]): number[] {
  return responses.map(({ outputs }) => valueAt(outputs, 'x'));
}

describe.each(transports)('over $name', ({ loopback }) => {
  describe('a stream', () => {
    it('of a function without one calls compute for every request, in order', async () => {
      await using pair = await loopback({
        async compute({ inputs }) {
          return { outputs: number(valueAt(inputs, 'x') * 2) };
        },
      });
      await fc.assert(
        fc.asyncProperty(fc.array(fc.nat(1000), { maxLength: 60 }), async (numbers) => {
          const responses = await collect(pair.client.stream(requestsOf(...numbers.map(number))));
          expect(values(responses)).toEqual(numbers.map((value) => value * 2));
        }),
        { numRuns: 25 },
      );
    });

    it('keeps a state of its own, exactly as long as it lasts', async () => {
      let living = 0;
      await using pair = await loopback(
        streaming(async function* (requests) {
          living++;
          let sum = 0;
          try {
            for await (const { inputs } of requests) {
              sum += valueAt(inputs, 'x');
              yield { outputs: number(sum) };
            }
          } finally {
            living--;
          }
        }),
      );
      const sessions = [1, 10, 100].map((step) =>
        collect(pair.client.stream(requestsOf(number(step), number(step), number(step)))),
      );
      const sums = await Promise.all(sessions);
      expect(sums.map(values)).toEqual([
        [1, 2, 3],
        [10, 20, 30],
        [100, 200, 300],
      ]);
      expect(living).toBe(0);
    });

    it('is a conversation: a request may depend on the response before it', async () => {
      await using pair = await loopback(
        streaming(async function* (requests) {
          for await (const { inputs } of requests) yield { outputs: number(valueAt(inputs, 'x') + 1) };
        }),
      );
      let answered = deferred<number>();
      async function* asking(): AsyncGenerator<ComputeRequest> {
        let value = 0;
        while (value < 10) {
          answered = deferred();
          yield { inputs: number(value) };
          value = await answered.promise;
        }
      }
      let last = 0;
      for await (const { outputs } of pair.client.stream(asking())) {
        last = valueAt(outputs, 'x');
        answered.resolve(last);
      }
      expect(last).toBe(10);
    });

    it('goes on answering after the last request', async () => {
      await using pair = await loopback(
        streaming(async function* (requests) {
          let count = 0;
          for await (const _ of requests) count++;
          for (let index = 0; index < 3; index++) yield { outputs: number(count + index) };
        }),
      );
      expect(values(await collect(pair.client.stream(requestsOf({}, {}))))).toEqual([2, 3, 4]);
    });

    it('without requests has no responses, and calls nobody', async () => {
      let called = false;
      await using pair = await loopback(
        streaming(async function* () {
          called = true;
          yield { outputs: {} };
        }),
      );
      expect(await collect(pair.client.stream([]))).toEqual([]);
      expect(called).toBe(false);
    });

    it('may have no response to a request, or many', async () => {
      await using pair = await loopback(
        streaming(async function* (requests) {
          for await (const { inputs } of requests) {
            for (let index = 0; index < valueAt(inputs, 'x'); index++) yield { outputs: inputs };
          }
        }),
      );
      const responses = await collect(pair.client.stream(requestsOf(number(0), number(3), number(0), number(1))));
      expect(values(responses)).toEqual([3, 3, 3, 1]);
    });

    it('takes requests from a plain list, and gives them the options of the call', async () => {
      const seen: unknown[] = [];
      await using pair = await loopback({
        async compute({ inputs, model, parameters, outputs }) {
          seen.push({ model, parameters, outputs });
          return { outputs: inputs };
        },
      });
      const options = { model: 'm', parameters: { a: 1 }, outputs: ['x'] };
      await collect(pair.client.stream([{ inputs: number(1) }, { inputs: number(2), parameters: { a: 2 } }], options));
      expect(seen).toEqual([options, { ...options, parameters: { a: 2 } }]);
    });

    it('is made when it is read, and not before', async () => {
      let asked = false;
      await using pair = await loopback(echo);
      pair.client.stream(
        (function* () {
          asked = true;
          yield { inputs: {} };
        })(),
      );
      await pair.client.compute(number(1));
      expect(asked).toBe(false);
      expect(pair.client.getStatistics().requests).toBe(1);
    });
  });

  describe('an error', () => {
    it('in the middle comes after the responses before it', async () => {
      await using pair = await loopback(
        streaming(async function* (requests) {
          for await (const { inputs } of requests) {
            if (valueAt(inputs, 'x') === 3) throw new CommError('ABORTED', 'no threes', { reason: 'THREE' });
            yield { outputs: inputs };
          }
        }),
      );
      const received: number[] = [];
      const read = async () => {
        for await (const { outputs } of pair.client.stream(requestsOf(...[1, 2, 3, 4].map(number))))
          received.push(valueAt(outputs, 'x'));
      };
      expect(await rejection(read())).toMatchObject({ code: 'ABORTED', message: 'no threes', reason: 'THREE' });
      expect(received).toEqual([1, 2]);
    });

    it('that is none of ours is logged, and INTERNAL to the caller', async () => {
      const logger = new RecordingLogger();
      await using pair = await loopback(
        // biome-ignore lint/correctness/useYield: it fails before it could
        streaming(async function* () {
          throw new TypeError('secret');
        }),
        { server: { logger } },
      );
      const error = await rejection(collect(pair.client.stream(requestsOf({}), { requestId: 'r-1' })));
      expect(error).toMatchObject({ code: 'INTERNAL', message: expect.not.stringContaining('secret') });
      expect(logger.lines).toEqual([expect.stringMatching(/^request r-1 failed: TypeError: secret\n\s+at /)]);
    });

    it('reaches a reader who is slow, while requests are stuck', async () => {
      const fail = deferred();
      const failed = deferred();
      await using pair = await loopback(
        streaming(async function* () {
          yield { outputs: {} };
          await fail.promise;
          failed.resolve();
          throw new CommError('ABORTED', 'in the middle', { reason: 'MIDDLE' });
        }),
      );
      const responses = pair.client.stream(
        (function* () {
          for (;;) yield { inputs: large() };
        })(),
      );
      await responses.next();
      fail.resolve();
      await failed.promise;
      for (let times = 0; times < 10; times++) await pair.client.compute(number(1));
      expect(await rejection(responses.next())).toMatchObject({ name: 'CommError', code: 'ABORTED', reason: 'MIDDLE' });
    });

    it('in the caller’s own source of requests is what the caller gets, and cancels the server', async () => {
      const reason = deferred<unknown>();
      const own = new RangeError('my own');
      await using pair = await loopback(
        streaming(async function* (requests, { signal }) {
          void abortReason(signal).then(reason.resolve);
          for await (const { inputs } of requests) yield { outputs: inputs };
        }),
      );
      const answered = deferred();
      const responses = pair.client.stream(
        (async function* () {
          yield { inputs: number(1) };
          await answered.promise;
          throw own;
        })(),
      );
      await responses.next();
      answered.resolve();
      expect(await rejection(responses.next())).toBe(own);
      expect(await reason.promise).toMatchObject({ code: 'CANCELLED' });
    });

    it('of undefined in that source is an error like any other', async () => {
      await using pair = await loopback(echo);
      const source = (async function* (): AsyncGenerator<ComputeRequest> {
        if (pair) throw undefined;
        yield { inputs: {} };
      })();
      expect(await rejection(collect(pair.client.stream(source)))).toBe(undefined);
    });

    it('in a request that cannot be encoded names the tensor', async () => {
      await using pair = await loopback(echo);
      const wrong = { x: { dtype: 'float32', shape: [3], data: new Float32Array(2) } } as const;
      expect(await rejection(collect(pair.client.stream(requestsOf(number(1), wrong))))).toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: "tensor 'x' of shape [3] needs 3 elements, but its data has 2",
      });
    });

    it('is never retried, because requests cannot be taken back', async () => {
      let sent = 0;
      await using pair = await loopback(
        // biome-ignore lint/correctness/useYield: it fails before it could
        streaming(async function* () {
          throw new CommError('UNAVAILABLE', 'not now');
        }),
        { client: { retry: new FixedDelay({ delayMs: 0 }) } },
      );
      const source = (function* () {
        sent++;
        yield { inputs: {} };
      })();
      expect(await rejection(collect(pair.client.stream(source)))).toMatchObject({
        code: 'UNAVAILABLE',
        message: 'not now',
      });
      expect(sent).toBe(1);
      expect(pair.server.getStatistics().requests).toBe(1);
    });
  });

  describe('a reader who leaves', () => {
    it('cancels the server side, and ends its generator', async () => {
      const reason = deferred<unknown>();
      const ended = deferred();
      await using pair = await loopback(
        streaming(async function* (requests, { signal }) {
          void abortReason(signal).then(reason.resolve);
          try {
            for await (const { inputs } of requests) for (;;) yield { outputs: inputs };
          } finally {
            ended.resolve();
          }
        }),
      );
      for await (const _ of pair.client.stream(requestsOf(large()))) break;
      expect(await reason.promise).toMatchObject({ code: 'CANCELLED' });
      await ended.promise;
      expect(pair.client.getStatistics()).toMatchObject({ inFlight: 0, failed: { CANCELLED: 1 } });
    });

    it('is not taken for one whose requests have come to their end', async () => {
      const outcome = deferred<unknown>();
      await using pair = await loopback(
        streaming(async function* (requests) {
          try {
            for await (const { inputs } of requests) yield { outputs: inputs };
            outcome.resolve('all requests were read');
          } catch (error) {
            outcome.resolve(error);
            throw error;
          }
        }),
      );
      for await (const _ of pair.client.stream(requestThenSilence(number(1)))) break;
      expect(await outcome.promise).toMatchObject({ name: 'CommError', code: 'CANCELLED' });
      await pair.server.stop();
      expect(pair.server.getStatistics()).toMatchObject({ succeeded: 0, failed: { CANCELLED: 1 } });
    });

    it('does not wait for a source of requests that is silent', async () => {
      const reason = deferred<unknown>();
      await using pair = await loopback(
        streaming(async function* (requests, { signal }) {
          void abortReason(signal).then(reason.resolve);
          for await (const { inputs } of requests) yield { outputs: inputs };
        }),
      );
      for await (const _ of pair.client.stream(requestThenSilence(number(1)))) break;
      expect(await reason.promise).toMatchObject({ code: 'CANCELLED' });
    });

    it('ends a source of requests that is stuck', async () => {
      const ended = deferred();
      await using pair = await loopback(
        streaming(async function* (_, { signal }) {
          yield { outputs: {} };
          throw await abortReason(signal);
        }),
      );
      const source = (function* () {
        try {
          for (;;) yield { inputs: large() };
        } finally {
          ended.resolve();
        }
      })();
      for await (const _ of pair.client.stream(source)) break;
      await ended.promise;
    });
  });

  describe('a function', () => {
    it('that ends before it has read all requests ends the stream, and their source', async () => {
      const ended = deferred();
      await using pair = await loopback(
        streaming(async function* () {
          yield { outputs: number(1) };
        }),
      );
      const source = (function* () {
        try {
          for (;;) yield { inputs: large() };
        } finally {
          ended.resolve();
        }
      })();
      expect(values(await collect(pair.client.stream(source)))).toEqual([1]);
      await ended.promise;
      await pair.client.compute(number(1));
    });

    it('that fails when it is asked for a stream fails the stream', async () => {
      await using pair = await loopback(
        streaming(() => {
          throw new CommError('NOT_FOUND', 'no such session');
        }),
      );
      expect(await rejection(collect(pair.client.stream(requestsOf({}))))).toMatchObject({ code: 'NOT_FOUND' });
    });
  });

  it('many streams and calls at once on one connection leave nothing behind', async () => {
    await using pair = await loopback(
      streaming(async function* (requests) {
        for await (const { inputs } of requests) yield { outputs: inputs };
      }),
    );
    const streams = Array.from({ length: 60 }, async (_, index) => {
      const source = requestsOf(...Array.from({ length: 5 }, (__, step) => number(index * 10 + step)));
      if (index % 3 !== 0) return values(await collect(pair.client.stream(source)));
      for await (const { outputs } of pair.client.stream(source)) return [valueAt(outputs, 'x')];
      return [];
    });
    const calls = Array.from({ length: 60 }, (_, index) => pair.client.compute(number(index)));
    expect(await Promise.all(streams)).toEqual(
      Array.from({ length: 60 }, (_, index) =>
        Array.from({ length: index % 3 === 0 ? 1 : 5 }, (__, step) => index * 10 + step),
      ),
    );
    expect((await Promise.all(calls)).map((outputs) => valueAt(outputs, 'x'))).toEqual(
      Array.from({ length: 60 }, (_, index) => index),
    );
    await pair.server.stop();
    expect(pair.client.getStatistics().inFlight).toBe(0);
    expect(pair.server.getStatistics().inFlight).toBe(0);
  });
});
