import {
  AsyncChainComputeFunction,
  AsyncGRPCComputeServer,
  type CallContext,
  CommError,
  type ComputeFunction,
  type ComputeRequest,
  GRPCComputeClient,
  RemoteComputeFunction,
  tensor,
} from '@splitlearn/comm';
import { loopback } from '@splitlearn/comm/testing';
import { describe, expect, it } from 'vitest';
import { abortReason, collect, deferred, rejection } from './support/deferred.js';
import { echo, requestsOf, requestThenSilence, streaming, valueAt } from './support/functions.js';
import { RawClient } from './support/raw-client.js';

const number = (value: number) => ({ x: tensor([value]) });

/** Adds a number to x, in a call and in a session. */
function adding(amount: number): ComputeFunction {
  return {
    async compute({ inputs }) {
      return { outputs: number(valueAt(inputs, 'x') + amount) };
    },
  };
}

/** A server on the far side of another one: caller → near → far. */
async function relay(
  far: ComputeFunction,
  near: (address: string) => ComputeFunction = (address) => new RemoteComputeFunction(address),
) {
  const farServer = new AsyncGRPCComputeServer({ computeFn: far, port: 0 });
  const farPort = await farServer.start();
  const pair = await loopback(near(`127.0.0.1:${farPort}`));
  return {
    client: pair.client,
    nearPort: pair.port,
    farPort,
    async [Symbol.asyncDispose]() {
      await pair.close();
      await farServer.stop({ graceMs: 0 });
    },
  };
}

describe('a call through another server', () => {
  it('takes along deadline, id, metadata, model, parameters and outputs, but not the credentials', async () => {
    const seen: { request: ComputeRequest; context: CallContext }[] = [];
    await using two = await relay({
      async compute(request, context) {
        seen.push({ request, context });
        return { model: 'far', outputs: { a: tensor([1]), b: tensor([2]) }, timing: { queueMs: 7, computeMs: 8 } };
      },
    });
    const { outputs, timing } = await two.client.computeWithTiming(
      { x: tensor([5]) },
      {
        model: 'm',
        parameters: { temperature: 0.5 },
        outputs: ['b'],
        requestId: 'id-1',
        timeoutMs: 30_000,
        metadata: { 'x-tenant': 'acme', authorization: 'Bearer secret' },
      },
    );
    expect(outputs).toEqual({ b: tensor([2]) });
    expect(timing).toMatchObject({ queueMs: 7, computeMs: 8 });
    const [{ request, context } = {}] = seen;
    expect(request).toEqual({
      model: 'm',
      inputs: { x: tensor([5]) },
      parameters: { temperature: 0.5 },
      outputs: ['b'],
    });
    expect(context).toMatchObject({ requestId: 'id-1', metadata: { 'x-tenant': 'acme' } });
    expect(context?.metadata).toEqual({ 'x-tenant': 'acme' });
    const leftMs = (context?.deadlineMs ?? 0) - Date.now();
    expect(leftMs).toBeGreaterThan(20_000);
    expect(leftMs).toBeLessThanOrEqual(30_001);
  });

  it('without a deadline has none there either', async () => {
    const deadline = deferred<number | undefined>();
    await using two = await relay({
      async compute({ inputs }, { deadlineMs }) {
        deadline.resolve(deadlineMs);
        return { outputs: inputs };
      },
    });
    await two.client.compute(number(1), { timeoutMs: Number.POSITIVE_INFINITY });
    expect(await deadline.promise).toBe(undefined);
  });

  it('that is cancelled is cancelled there', async () => {
    const begun = deferred();
    const reason = deferred<unknown>();
    await using two = await relay({
      async compute(_, { signal }) {
        begun.resolve();
        reason.resolve(await abortReason(signal));
        throw signal.reason;
      },
    });
    const controller = new AbortController();
    const call = rejection(two.client.compute(number(1), { signal: controller.signal }));
    await begun.promise;
    controller.abort();
    expect(await call).toMatchObject({ code: 'CANCELLED' });
    expect(await reason.promise).toMatchObject({ code: 'CANCELLED' });
  });

  it('whose time is up ends there too', async () => {
    const reason = deferred<unknown>();
    await using two = await relay({
      async compute(_, { signal }) {
        reason.resolve(await abortReason(signal));
        throw signal.reason;
      },
    });
    expect(await rejection(two.client.compute(number(1), { timeoutMs: 300 }))).toMatchObject({
      code: 'DEADLINE_EXCEEDED',
    });
    expect(await reason.promise).toBeInstanceOf(CommError);
  });

  it('gets the errors of the far side as they are', async () => {
    await using two = await relay({
      async compute() {
        throw new CommError('RESOURCE_EXHAUSTED', 'busy', { reason: 'QUEUE_FULL', retryAfterMs: 9 });
      },
    });
    const busy = { code: 'RESOURCE_EXHAUSTED', message: 'busy', reason: 'QUEUE_FULL', retryAfterMs: 9 };
    expect(await rejection(two.client.compute(number(1)))).toMatchObject(busy);
    expect(await rejection(collect(two.client.stream(requestsOf(number(1)))))).toMatchObject(busy);
  });

  it('names the server that is away, and not the one that said so', async () => {
    await using pair = await loopback({
      async compute(request, context) {
        return new RemoteComputeFunction('127.0.0.1:1').compute(request, context);
      },
    });
    const { message } = (await rejection(pair.client.compute(number(1)))) as CommError;
    expect(message).toMatch(/^the server at 127\.0\.0\.1:1 cannot be reached/);
    expect(message).not.toContain(String(pair.port));
  });

  it('asks the far side what is served', async () => {
    const models = [{ name: 'gpt', state: 'READY', inputs: [], outputs: [], attributes: { a: 'b' } }];
    await using two = await relay({ ...echo, info: () => ({ name: 'far', version: '9', models }) });
    expect(await two.client.getServiceInfo()).toMatchObject({ name: 'far', version: '9', models });
  });

  it('may carry headers that belong to the caller’s own connection', async () => {
    const seen: unknown[] = [];
    await using two = await relay({
      async compute({ inputs }, { metadata }) {
        seen.push(metadata);
        return { outputs: inputs };
      },
    });
    await using raw = new RawClient(`127.0.0.1:${two.nearPort}`);
    const { Metadata } = await import('@grpc/grpc-js');
    const metadata = new Metadata();
    metadata.set('content-length', '5'); // an empty message and its prefix
    metadata.set('host', 'elsewhere');
    metadata.set('x-kept', 'yes');
    const { code } = await raw.unary('Compute', new Uint8Array(), metadata);
    expect(code).toBe('OK');
    expect(seen).toEqual([{ 'x-kept': 'yes' }]);
  });
});

describe('a stream through another server', () => {
  it('is a session there', async () => {
    await using two = await relay(
      streaming(async function* (requests) {
        let sum = 0;
        for await (const { inputs } of requests) {
          sum += valueAt(inputs, 'x');
          yield { outputs: number(sum) };
        }
      }),
    );
    const responses = await collect(two.client.stream(requestsOf(number(1), number(2), number(3))));
    expect(responses.map(({ outputs }) => valueAt(outputs, 'x'))).toEqual([1, 3, 6]);
  });

  it('keeps the outputs of each request, however far ahead the requests are read', async () => {
    await using two = await relay({
      async compute() {
        return { outputs: { a: tensor([1]), b: tensor([2]) } };
      },
    });
    const requests = Array.from({ length: 20 }, (_, index) => ({ inputs: {}, outputs: [index % 2 === 0 ? 'a' : 'b'] }));
    const responses = await collect(two.client.stream(requests));
    expect(responses.map(({ outputs }) => Object.keys(outputs))).toEqual(requests.map(({ outputs }) => outputs));
  });

  it('ends there when its reader leaves here', async () => {
    const reason = deferred<unknown>();
    await using two = await relay(
      streaming(async function* (requests, { signal }) {
        void abortReason(signal).then(reason.resolve);
        for await (const { inputs } of requests) yield { outputs: inputs };
      }),
    );
    for await (const _ of two.client.stream(requestThenSilence(number(1)))) break;
    expect(await reason.promise).toMatchObject({ code: 'CANCELLED' });
  });
});

describe('a chain', () => {
  it('of stages here and there computes as one function, in calls and in streams', async () => {
    await using far = await loopback(adding(10));
    const chain = new AsyncChainComputeFunction([
      adding(1),
      new RemoteComputeFunction(`127.0.0.1:${far.port}`),
      adding(100),
    ]);
    await using near = await loopback(chain);
    expect(valueAt(await near.client.compute(number(0)), 'x')).toBe(111);
    const responses = await collect(near.client.stream(requestsOf(number(1), number(2))));
    expect(responses.map(({ outputs }) => valueAt(outputs, 'x'))).toEqual([112, 113]);
  });

  it('of remote stages only streams through all of them', async () => {
    await using first = await loopback(adding(1));
    await using second = await loopback(adding(2));
    const chain = new AsyncChainComputeFunction([
      new RemoteComputeFunction(`127.0.0.1:${first.port}`),
      new RemoteComputeFunction(`127.0.0.1:${second.port}`),
    ]);
    await using near = await loopback(chain);
    const numbers = Array.from({ length: 50 }, (_, index) => index);
    const responses = await collect(near.client.stream(requestsOf(...numbers.map(number))));
    expect(responses.map(({ outputs }) => valueAt(outputs, 'x'))).toEqual(numbers.map((value) => value + 3));
  });

  it('whose middle stage is away does not start, and lets go of the stages before', async () => {
    const log: string[] = [];
    const watched: ComputeFunction = {
      ...adding(1),
      setup: async () => void log.push('setup'),
      teardown: async () => void log.push('teardown'),
    };
    await using away = new GRPCComputeClient('127.0.0.1:1');
    // Short of time, because a server that is not there may always be on its way.
    const impatient = new RemoteComputeFunction(away);
    impatient.setup = () => away.connect({ timeoutMs: 20 });
    const server = new AsyncGRPCComputeServer({
      computeFn: new AsyncChainComputeFunction([watched, impatient, watched]),
      port: 0,
    });
    expect(await rejection(server.start())).toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('127.0.0.1:1'),
    });
    expect(log).toEqual(['setup', 'teardown']);
  });

  it('whose remote stage goes away in the middle of a session fails it, and ends the other stages', async () => {
    const ended = deferred();
    const first = streaming(async function* (requests) {
      try {
        for await (const { inputs } of requests) yield { outputs: inputs };
      } finally {
        ended.resolve();
      }
    });
    await using far = await loopback(
      streaming(async function* (requests) {
        for await (const { inputs } of requests) yield { outputs: inputs };
      }),
    );
    await using near = await loopback(
      new AsyncChainComputeFunction([first, new RemoteComputeFunction(`127.0.0.1:${far.port}`)]),
    );
    const responses = near.client.stream(requestThenSilence(number(1)));
    await responses.next();
    await far.server.stop({ graceMs: 0 });
    expect(await rejection(responses.next())).toMatchObject({ code: 'UNAVAILABLE', reason: 'STOPPING' });
    await ended.promise;
  });
});
