import {
  AsyncLambdaComputeFunction,
  AsyncModelComputeFunction,
  type CallContext,
  type ComputeFunction,
  type Model,
  SerialExecutor,
  tensor,
} from '@splitlearn/comm';
import { loopback as overTcp } from '@splitlearn/comm/testing';
import { describe, expect, it, vi } from 'vitest';
import { collect, rejection } from './support/deferred.js';
import { echo, RecordingLogger } from './support/functions.js';
import { GatedModel } from './support/gated-model.js';
import { transports } from './support/transports.js';

vi.mock('../dist/grpc/internals.js', { spy: true });

const input = tensor([1]);
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** Echoes, and notes the contexts of its calls. */
function noting(contexts: CallContext[]): ComputeFunction {
  return {
    async compute({ inputs }, context) {
      contexts.push(context);
      return { outputs: inputs };
    },
  };
}

describe.each(transports)('over $name', ({ loopback }) => {
  describe('the id of a request', () => {
    it('is the caller’s, or made up anew for every call', async () => {
      const contexts: CallContext[] = [];
      await using pair = await loopback(noting(contexts));
      await pair.client.compute(input, { requestId: 'mine' });
      await pair.client.compute(input);
      await pair.client.compute(input);
      const [mine, second, third] = contexts.map(({ requestId }) => requestId);
      expect(mine).toBe('mine');
      expect(second).toMatch(UUID);
      expect(third).toMatch(UUID);
      expect(second).not.toBe(third);
    });

    it('is one for the whole of a stream', async () => {
      const contexts: CallContext[] = [];
      await using pair = await loopback(noting(contexts));
      await collect(pair.client.stream([{ inputs: {} }, { inputs: {} }], { requestId: 'session-1' }));
      await collect(pair.client.stream([{ inputs: {} }, { inputs: {} }]));
      const ids = contexts.map(({ requestId }) => requestId);
      expect(ids.slice(0, 2)).toEqual(['session-1', 'session-1']);
      expect(ids[2]).toMatch(UUID);
      expect(ids[3]).toBe(ids[2]);
    });

    it('is the same in every attempt, so that the server can tell', async () => {
      const { CommError, FixedDelay } = await import('@splitlearn/comm');
      const ids: string[] = [];
      await using pair = await loopback(
        {
          async compute({ inputs }, { requestId }) {
            if (ids.push(requestId) < 3) throw new CommError('UNAVAILABLE', 'not yet');
            return { outputs: inputs };
          },
        },
        { client: { retry: new FixedDelay({ delayMs: 0 }) } },
      );
      await pair.client.compute(input);
      expect(ids).toHaveLength(3);
      expect(new Set(ids).size).toBe(1);
    });
  });

  describe('metadata', () => {
    it('arrives as it was sent, in calls and in streams', async () => {
      const contexts: CallContext[] = [];
      await using pair = await loopback(noting(contexts));
      const metadata = { 'x-tenant': 'a, b; c="d"', 'X-Upper': 'Value', authorization: 'Bearer 123' };
      await pair.client.compute(input, { metadata });
      await collect(pair.client.stream([{ inputs: {} }], { metadata }));
      const expected = { 'x-tenant': 'a, b; c="d"', 'x-upper': 'Value', authorization: 'Bearer 123' };
      expect(contexts.map((context) => context.metadata)).toEqual([expected, expected]);
    });

    it.each([{ connection: 'close' }, { 'transfer-encoding': 'chunked' }, { 'x-name': 'Zoë' }, { 'x-bin': 'text' }])(
      'that cannot be sent (%o) fails the call at once, and no other',
      async (metadata) => {
        await using pair = await loopback(echo);
        const options = { metadata: metadata as unknown as Record<string, string> };
        const invalid = {
          code: 'INVALID_ARGUMENT',
          message: expect.stringContaining(`metadata '${Object.keys(metadata)[0]}' cannot be sent`),
        };
        expect(await rejection(pair.client.compute(input, options))).toMatchObject(invalid);
        expect(await rejection(collect(pair.client.stream([{ inputs: {} }], options)))).toMatchObject(invalid);
        expect(await pair.client.compute(input)).toEqual(input);
      },
    );
  });

  describe('outputs', () => {
    const three = new AsyncLambdaComputeFunction(() => ({ a: tensor([1]), b: tensor([2]), c: tensor([3]) }));

    it('are those that were asked for', async () => {
      await using pair = await loopback(three);
      expect(await pair.client.compute({}, { outputs: ['c', 'a'] })).toEqual({ a: tensor([1]), c: tensor([3]) });
      expect(await pair.client.compute({}, { outputs: [] })).toHaveProperty('b');
      expect(await pair.client.compute(input, { outputs: ['b'] })).toEqual(tensor([2]));
    });

    it('that are not there fail the call, and the names that are there are told', async () => {
      await using pair = await loopback(three);
      expect(await rejection(pair.client.compute({}, { outputs: ['a', 'z'] }))).toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: "there is no output 'z'; there are 'a', 'b', 'c'",
      });
    });

    it('of a stream are chosen by each request', async () => {
      await using pair = await loopback(three);
      const responses = await collect(
        pair.client.stream([{ inputs: {}, outputs: ['a'] }, { inputs: {} }, { inputs: {}, outputs: ['c', 'b'] }]),
      );
      expect(responses.map(({ outputs }) => Object.keys(outputs))).toEqual([['a'], ['a', 'b', 'c'], ['b', 'c']]);
      expect(await rejection(collect(pair.client.stream([{ inputs: {}, outputs: ['z'] }])))).toMatchObject({
        message: "there is no output 'z'; there are 'a', 'b', 'c'",
      });
    });

    it('of a model’s stream may be in one piece and not in another', async () => {
      const model: Model = {
        run: () => ({}),
        async *stream() {
          yield { a: tensor([1]), b: tensor([2]) };
          yield { b: tensor([3]), c: tensor([4]) };
        },
      };
      await using pair = await loopback(new AsyncModelComputeFunction({ model }));
      const responses = await collect(
        pair.client.stream([
          { inputs: {}, outputs: ['a'] },
          { inputs: {}, outputs: ['c', 'b'] },
        ]),
      );
      expect(responses.map(({ outputs }) => Object.keys(outputs))).toEqual([['a'], [], ['b'], ['b', 'c']]);
    });

    it('reach a model by name, which may then compute no others', async () => {
      const run = vi.fn<Model['run']>(() => ({ a: tensor([1]) }));
      await using pair = await loopback(new AsyncModelComputeFunction({ model: { run } }));
      await pair.client.compute({}, { outputs: ['a'], parameters: { k: 1 } });
      expect(run.mock.calls[0]?.[1]).toMatchObject({ outputs: ['a'], parameters: { k: 1 } });
    });
  });

  describe('timing', () => {
    it('says where the time of a call went', async () => {
      const model = new GatedModel();
      await using pair = await loopback(new AsyncModelComputeFunction({ model, executor: new SerialExecutor() }));
      const first = pair.client.computeWithTiming(input);
      await model.at(0).begun.promise;
      const second = pair.client.computeWithTiming({ x: input });
      model.at(0).answer.resolve({ y: input });
      expect((await first).outputs).toEqual(input);
      await model.at(1).begun.promise;
      model.at(1).answer.resolve({ y: input });
      const { outputs, timing } = await second;
      expect(outputs).toEqual({ y: input });
      const { totalMs, networkMs, serverMs, queueMs, computeMs } = timing;
      expect(totalMs).toBeGreaterThanOrEqual(serverMs);
      expect(networkMs).toBeCloseTo(totalMs - serverMs, 6);
      expect(serverMs).toBeGreaterThanOrEqual(queueMs + computeMs);
      expect(computeMs).toBeGreaterThan(0);
    });

    it('says how many rows were computed together, where the function does', async () => {
      await using pair = await loopback({
        async compute({ inputs }) {
          return { outputs: inputs, timing: { queueMs: 3, computeMs: 4, batchSize: 300 } };
        },
      });
      expect((await pair.client.computeWithTiming(input)).timing).toMatchObject({ batchSize: 300 });
    });

    it('of every response of a stream is told too', async () => {
      await using pair = await loopback({
        async compute({ inputs }) {
          return { model: 'm', outputs: inputs, timing: { queueMs: 3, computeMs: 4, batchSize: 5 } };
        },
      });
      expect(await collect(pair.client.stream([{ inputs: {} }]))).toEqual([
        { model: 'm', outputs: {}, timing: { queueMs: 3, computeMs: 4, batchSize: 5 } },
      ]);
    });
  });

  describe('statistics', () => {
    it('count calls, streams, failures and bytes, on both sides alike', async () => {
      await using pair = await loopback(
        {
          async compute({ inputs, parameters }) {
            if (parameters?.fail) throw new Error('as asked');
            return { outputs: inputs };
          },
        },
        { server: { logger: new RecordingLogger() } },
      );
      const { client, server } = pair;
      await client.compute(input);
      await client.call({ inputs: {} });
      await collect(client.stream([{ inputs: {} }, { inputs: {} }]));
      await rejection(client.compute(input, { parameters: { fail: true } }));
      await server.stop();
      const [sent, received] = [client.getStatistics(), server.getStatistics()];
      for (const statistics of [sent, received]) {
        expect(statistics).toMatchObject({ requests: 4, inFlight: 0, succeeded: 3, failed: { INTERNAL: 1 } });
        const { mean, p50, p95, p99 } = statistics.latencyMs;
        expect(mean).toBeGreaterThan(0);
        expect(p50).toBeLessThanOrEqual(p95);
        expect(p95).toBeLessThanOrEqual(p99);
      }
      expect(sent.bytesSent).toBeGreaterThan(0);
      expect(received.bytesReceived).toBe(sent.bytesSent);
      expect(received.bytesSent).toBe(sent.bytesReceived);
    });

    it('show what is under way', async () => {
      const model = new GatedModel();
      await using pair = await loopback(new AsyncModelComputeFunction({ model, executor: new SerialExecutor() }));
      const call = pair.client.compute({});
      await model.at(0).begun.promise;
      expect(pair.client.getStatistics()).toMatchObject({ requests: 1, inFlight: 1 });
      expect(pair.server.getStatistics()).toMatchObject({ requests: 1, inFlight: 1 });
      model.at(0).answer.resolve({});
      await call;
      expect(pair.client.getStatistics()).toMatchObject({ inFlight: 0, succeeded: 1 });
    });
  });

  describe('service info', () => {
    it('of a function that says nothing is the package’s own', async () => {
      await using pair = await loopback(echo, { server: { maxMessageLength: 12_345 } });
      expect(await pair.client.getServiceInfo()).toEqual({
        name: '@splitlearn/comm',
        version: expect.stringMatching(/^\d+\.\d+\.\d+/),
        maxMessageBytes: 12_345,
        models: [],
        encodings: expect.arrayContaining(['float16', 'bfloat16', 'int8', 'gzip']),
      });
    });

    it('of a model says what it takes and gives', async () => {
      const info = {
        inputs: [{ name: 'x', dtype: 'float32' as const, shape: ['batch', 3] }],
        outputs: [{ name: 'y', dtype: 'string' as const, shape: [] }],
        attributes: { engine: 'test' },
      };
      await using pair = await loopback(new AsyncModelComputeFunction({ model: { run: (tensors) => tensors, info } }));
      expect((await pair.client.getServiceInfo()).models).toEqual([{ name: 'default', state: 'READY', ...info }]);
    });
  });
});

describe('connecting', () => {
  it('can be done before the first call, and again', async () => {
    await using pair = await overTcp(echo);
    await pair.client.connect();
    await pair.client.connect({ timeoutMs: 1_000 });
    expect(await pair.client.compute(input)).toEqual(input);
  });

  it('is for the whole of a block with await using', async () => {
    const { GRPCComputeClient } = await import('@splitlearn/comm');
    await using pair = await overTcp(echo);
    const outside = await (async () => {
      await using client = new GRPCComputeClient(pair.client.address);
      await client.compute(input);
      return client;
    })();
    expect(await rejection(outside.compute(input))).toMatchObject({ code: 'FAILED_PRECONDITION' });
  });
});
