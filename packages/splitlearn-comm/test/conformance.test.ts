import { type CallContext, CommError, type ComputeFunction, type Tensor, type Tensors, tensor } from '@splitlearn/comm';
import { describe, expect, it, vi } from 'vitest';
import { allBits, DTYPES, zeros } from './support/arbitraries.js';
import { collect, deferred, rejection } from './support/deferred.js';
import { echo, requestsOf, streaming, valueAt } from './support/functions.js';
import { withoutWaiting } from './support/time.js';
import { transports } from './support/transports.js';

vi.mock('../dist/grpc/internals.js', { spy: true });

// What a caller may rely on, however its calls travel. More of it is in calls, deadlines-and-cancelling, errors,
// round-trip and streams.test.ts, which run over the same transports.

const MIB = 1024 * 1024;
const number = (value: number): Tensors => ({ x: tensor([value]) });

/** Bytes of which no two runs are alike: what is lost, doubled or swapped shows. */
function bytes(length: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = seed;
  for (let index = 0; index < words.length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[index] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}

function same(a: Tensor, b: Uint8Array): boolean {
  const { data } = a as Tensor<'uint8'>;
  return Buffer.compare(data, b) === 0;
}

const immediate = () => new Promise<void>((resolve) => setImmediate(resolve));

describe.each(transports)('over $name', ({ loopback, relayed, exchange }) => {
  describe('a tensor', () => {
    it('may be empty or have no dimension, whatever its dtype', async () => {
      await using pair = await loopback(echo);
      for (const shape of [[], [0], [2, 0, 3], [1], [3, 5]]) {
        const inputs = Object.fromEntries(DTYPES.map((dtype) => [dtype, zeros(dtype, shape)]));
        expect(allBits(await pair.client.compute(inputs))).toEqual(allBits(inputs));
      }
    });

    it('may be larger than anything that it is cut into', async () => {
      await using pair = await loopback(echo);
      const edges = [16 * 1024, 64 * 1024, 256 * 1024, 512 * 1024, MIB].flatMap((size) =>
        [-200, -60, 0, 1].map((by) => size + by),
      );
      const sent = [...edges, 3_000_000, 20_000_000].map((length, index) => bytes(length, index + 1));
      const answers = await Promise.all(sent.map((data) => pair.client.compute(tensor(data))));
      expect(answers.map((answer, index) => same(answer, sent[index] as Uint8Array))).toEqual(sent.map(() => true));
    });

    it.each([10, 300_000, 20_000_000])('of %i bytes is sent as it was when the call was made', async (length) => {
      await using pair = await loopback(echo);
      const data = bytes(length);
      const [before, session] = [data.slice(), bytes(length, 2)];
      const sessionBefore = session.slice();
      await pair.client.connect();
      const call = pair.client.compute(tensor(data));
      const stream = collect(
        pair.client.stream(
          (function* () {
            yield { inputs: { x: tensor(session) } };
            // It is asked for the next one when this one has left.
            session.fill(0);
          })(),
        ),
      );
      data.fill(0);
      expect(same(await call, before)).toBe(true);
      const [answer] = await stream;
      expect(same(answer?.outputs.x as Tensor, sessionBefore)).toBe(true);
    });

    it('that was answered may be changed by the function while the answer is on its way', async () => {
      const shared = new Float32Array(3_000_000);
      const returned = deferred();
      await using pair = await loopback({
        async compute({ inputs }) {
          const value = valueAt(inputs, 'x');
          if (value === 2) {
            await returned.promise;
            await immediate();
          }
          shared.fill(value);
          if (value === 1) returned.resolve();
          return { outputs: { y: tensor(shared) } };
        },
        async *stream(requests) {
          for await (const { inputs } of requests) {
            shared.fill(valueAt(inputs, 'x'));
            yield { outputs: { y: tensor(shared) } };
          }
        },
      });
      const values = ({ y }: Tensors) => [...new Set((y as Tensor<'float32'>).data)];
      const answers = await Promise.all([pair.client.compute(number(1)), pair.client.compute(number(2))]);
      expect(answers.map(values)).toEqual([[1], [2]]);
      const responses = await collect(pair.client.stream(requestsOf(number(3), number(4), number(5))));
      expect(responses.map(({ outputs }) => values(outputs))).toEqual([[3], [4], [5]]);
    });
  });

  describe('many calls at once', () => {
    it('are each answered with what is theirs', async () => {
      await using pair = await loopback({
        async compute({ inputs, parameters }, { requestId }) {
          if (parameters?.fail) throw new CommError('ABORTED', requestId);
          for (let turns = Number(parameters?.turns); turns > 0; turns--) await immediate();
          return { outputs: { ...inputs, id: tensor([requestId]) } };
        },
      });
      const calls = Array.from({ length: 500 }, async (_, index) => {
        const data = bytes((index * 7919) % 60_000, index);
        const options = { requestId: `r-${index}`, parameters: { turns: index % 7, fail: index % 10 === 3 } };
        const outcome = pair.client.compute({ x: tensor(data) }, options);
        if (index % 10 === 3) return (await outcome.catch((error: CommError) => error.message)) === `r-${index}`;
        const { x, id } = await outcome;
        return same(x as Tensor, data) && (id as Tensor).data[0] === `r-${index}`;
      });
      expect((await Promise.all(calls)).filter((right) => !right)).toEqual([]);
    });

    it.each(['request', 'answer'])('that are small do not wait for a large %s', async (what) => {
      const limits = { maxMessageLength: 128 * MIB };
      const large = tensor(new Uint8Array(64 * MIB));
      await using pair = await loopback(
        {
          async compute({ inputs, parameters }) {
            return { outputs: parameters?.large ? { y: large } : { y: tensor([Object.keys(inputs).length]) } };
          },
        },
        { client: limits, server: limits },
      );
      await pair.client.compute(number(0));
      let done = false;
      const [inputs, parameters] = what === 'request' ? [{ large }, {}] : [number(0), { large: true }];
      const call = pair.client.compute(inputs, { parameters }).then(() => (done = true));
      let answered = 0;
      for (; !done; answered++) await pair.client.compute(number(0));
      await call;
      // As many as there are larger buffers than a small call has to wait for: it is the order that counts, not the time.
      expect(answered).toBeGreaterThan(5);
    });
  });

  describe('backpressure', () => {
    const PIECE = 256 * 1024;
    const piece = (): Tensors => ({ x: tensor(new Uint8Array(PIECE)) });
    /** How many pieces may be ahead of their reader: an Exchange's 1 MiB, or what HTTP/2 has windows and grpc-js buffers for. */
    const ahead = exchange ? 4 + 2 : 100;

    it('stops a function whose answers are not read', async () => {
      let produced = 0;
      await using pair = await loopback(
        streaming(async function* () {
          for (; produced < 2_000; produced++) yield { outputs: piece() };
        }),
      );
      const responses = pair.client.stream(requestsOf({}));
      for (const read of [1, 200]) {
        for (let times = 0; times < read; times++) await responses.next();
        // Round trips on the same connection: time for whatever runs ahead to run ahead.
        for (let times = 0; times < 20; times++) await pair.client.compute(number(1));
        expect(produced).toBeGreaterThanOrEqual(read === 1 ? 1 : 201);
        expect(produced).toBeLessThanOrEqual((read === 1 ? 1 : 201) + ahead);
      }
      await responses.return();
    });

    it('stops a source of requests that are not read', async () => {
      let produced = 0;
      const read = deferred();
      await using pair = await loopback(
        streaming(async function* (requests) {
          yield { outputs: {} };
          await read.promise;
          let count = 0;
          for await (const _ of requests) count++;
          yield { outputs: number(count) };
        }),
      );
      const responses = pair.client.stream(
        (function* () {
          for (; produced < 300; produced++) yield { inputs: piece() };
        })(),
      );
      await responses.next();
      for (let times = 0; times < 20; times++) await pair.client.compute(number(1));
      expect(produced).toBeLessThanOrEqual(1 + ahead);
      read.resolve();
      expect((await collect(responses)).map(({ outputs }) => valueAt(outputs, 'x'))).toEqual([300]);
    });
  });

  describe('a server that stops', () => {
    it('finishes each call that it has begun, and begins none of those that it refuses', async () => {
      const begun: string[] = [];
      const some = deferred();
      await using pair = await loopback({
        async compute({ inputs }, { requestId }) {
          if (begun.push(requestId) === 300) some.resolve();
          for (let turns = 0; turns < 5; turns++) await immediate();
          return { outputs: inputs };
        },
      });
      await pair.client.connect();
      const input = tensor(bytes(10_000));
      const calls = Array.from({ length: 1_000 }, (_, index) => pair.client.compute(input, { requestId: `${index}` }));
      const outcomes = Promise.allSettled(calls);
      await some.promise;
      await pair.server.stop({ graceMs: 60_000 });
      const settled = (await outcomes).map((outcome, index) => ({ id: `${index}`, outcome }));
      const succeeded = settled.filter(({ outcome }) => outcome.status === 'fulfilled').map(({ id }) => id);
      expect([...begun].sort()).toEqual([...succeeded].sort());
      const errors = settled.flatMap(({ outcome }) => (outcome.status === 'rejected' ? [outcome.reason] : []));
      for (const error of errors) expect(error).toMatchObject({ code: 'UNAVAILABLE', retryable: true });
    });
  });

  describe('a connection that is lost', () => {
    it.each(['toServer', 'toClient'] as const)(
      '%s ends every call on it once, and the next one works',
      async (direction) => {
        const begun = new Set<string>();
        const computeFn: ComputeFunction = {
          async compute({ inputs }, { requestId }: CallContext) {
            begun.add(requestId);
            return { outputs: inputs };
          },
        };
        await using pair = await relayed(computeFn);
        const input = tensor(bytes(20_000));
        await pair.client.compute(input);
        pair.relay.cutAfter(2_000_000, direction);
        const outcomes = await Promise.allSettled(
          Array.from({ length: 200 }, (_, index) => pair.client.compute(input, { requestId: `${index}` })),
        );
        const lost = outcomes.flatMap((outcome, index) =>
          outcome.status === 'rejected' ? [{ index, ...outcome }] : [],
        );
        expect(lost.length).toBeGreaterThan(0);
        for (const { index, reason } of lost) {
          expect(reason).toBeInstanceOf(CommError);
          expect(reason).toMatchObject({ code: 'UNAVAILABLE', retryable: true });
          if (!exchange) continue;
          expect(['CONNECTION_LOST', 'NOT_SENT']).toContain(reason.reason);
          if (reason.reason === 'NOT_SENT') expect(begun).not.toContain(`${index}`);
        }
        expect(await pair.client.compute(input)).toEqual(input);
        expect(pair.client.getStatistics()).toMatchObject({ inFlight: 0, failed: { UNAVAILABLE: lost.length } });
      },
    );

    it.runIf(exchange)('without a word is given up, and the next call has a new one', async () => {
      const client = { keepAliveMs: 50, connectTimeoutMs: 2_000, timeoutMs: Number.POSITIVE_INFINITY };
      await using pair = await relayed(echo, { client });
      await pair.client.compute(number(1));
      pair.relay.blackHole();
      expect(await withoutWaiting(() => rejection(pair.client.compute(number(2))))).toMatchObject({
        code: 'UNAVAILABLE',
        reason: 'STALLED',
      });
      expect(await pair.client.compute(number(3))).toEqual(number(3));
    });
  });
});
