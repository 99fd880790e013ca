import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AsyncGRPCComputeServer,
  AsyncLambdaComputeFunction,
  CommError,
  type CommErrorCode,
  type ComputeFunction,
  FixedDelay,
  GRPCComputeClient,
  type ServiceInfo,
  type Tensors,
  tensor,
} from '@splitlearn/comm';
import { loopback as overTcp } from '@splitlearn/comm/testing';
import { describe, expect, it, vi } from 'vitest';
import { abortReason, collect, deferred, rejection } from './support/deferred.js';
import { foreignServer } from './support/foreign-server.js';
import { echo, RecordingLogger, valueAt } from './support/functions.js';
import { Wire } from './support/raw-client.js';
import { transports } from './support/transports.js';

vi.mock('../dist/grpc/internals.js', { spy: true });

const input = tensor([1]);

function throwing(error: unknown): ComputeFunction {
  return {
    async compute() {
      throw error;
    },
  };
}

describe.each(transports)('over $name', ({ loopback }) => {
  describe('a CommError of the compute function', () => {
    it.each<CommErrorCode>([
      'NOT_FOUND',
      'RESOURCE_EXHAUSTED',
      'UNAVAILABLE',
      'DEADLINE_EXCEEDED',
      'UNAUTHENTICATED',
      'DATA_LOSS',
    ])('%s travels with its reason and when to come back, and without its cause', async (code) => {
      const thrown = new CommError(code, 'as it is: ü 日本 %41\n', {
        reason: 'SUCH_IS_LIFE',
        retryAfterMs: 1_500,
        cause: new Error('secret'),
      });
      await using pair = await loopback(throwing(thrown));
      const error = await rejection(pair.client.compute(input));
      expect(error).toMatchObject({
        name: 'CommError',
        code,
        message: thrown.message,
        reason: 'SUCH_IS_LIFE',
        retryAfterMs: 1_500,
      });
      expect((error as CommError).cause).toBe(undefined);
    });

    it('without a reason says what it says, and nothing about the connection', async () => {
      await using pair = await loopback(throwing(new CommError('UNAVAILABLE', 'the database is away')));
      expect(await rejection(pair.client.compute(input))).toMatchObject({
        message: 'the database is away',
        reason: undefined,
      });
    });

    it.each<[string, CommError, string]>([
      ['with half a character', new CommError('ABORTED', 'half \ud800', { reason: 'ok' }), 'half \ufffd'],
      [
        'with a reason that is no header',
        new CommError('ABORTED', 'text', { reason: 'schön\r\ngrpc-status: 0' }),
        'text',
      ],
      ['that is endless', new CommError('ABORTED', `${'x'.repeat(1e6)} the end`), 'the end'],
    ])('%s arrives, and so do all others on the connection', async (_, thrown, message) => {
      await using pair = await loopback({
        async compute({ inputs, parameters }) {
          if (parameters?.fail) throw thrown;
          return { outputs: inputs };
        },
      });
      expect(await rejection(pair.client.compute(input, { parameters: { fail: true } }))).toMatchObject({
        code: 'ABORTED',
        message: expect.stringContaining(message),
      });
      expect(await rejection(collect(pair.client.stream([{ inputs: {}, parameters: { fail: true } }])))).toMatchObject({
        code: 'ABORTED',
      });
      expect(await pair.client.compute(input)).toEqual(input);
    });

    it('of another class is what its toCommError says', async () => {
      class ModelError extends Error {
        toCommError() {
          return new CommError('NOT_FOUND', 'no such model', { reason: 'MODEL_NOT_FOUND' });
        }
      }
      const logger = new RecordingLogger();
      await using pair = await loopback(throwing(new ModelError('/secret/path')), { server: { logger } });
      expect(await rejection(pair.client.compute(input))).toMatchObject({
        code: 'NOT_FOUND',
        reason: 'MODEL_NOT_FOUND',
      });
      expect(logger.lines).toEqual([]);
    });
  });

  describe('an unexpected error', () => {
    it.each<[string, unknown, RegExp]>([
      ['an Error', new TypeError('password = 1234'), /^request my-id failed: TypeError: password = 1234\n\s+at /],
      ['a string', 'password = 1234', /^request my-id failed: password = 1234$/],
      ['undefined', undefined, /^request my-id failed: undefined$/],
      ['an object of no class', Object.create(null), /^request my-id failed: \[Object: null prototype\] \{\}$/],
    ])(
      '%s is logged with its stack and the request’s id, and reaches the caller without its message',
      async (_, thrown, line) => {
        const logger = new RecordingLogger();
        await using pair = await loopback(throwing(thrown), { server: { logger } });
        const error = await rejection(pair.client.compute(input, { requestId: 'my-id' }));
        expect(error).toMatchObject({
          code: 'INTERNAL',
          message: "the compute function failed; the server's log has the error of request my-id",
        });
        expect(logger.lines).toEqual([expect.stringMatching(line)]);
      },
    );

    it('is logged with an id that cannot write lines of its own into the log', async () => {
      const logger = new RecordingLogger();
      await using pair = await loopback(throwing(new Error('x')), { server: { logger } });
      await rejection(pair.client.compute(input, { requestId: `a\nrequest b failed: \x1b[31m${'c'.repeat(1_000)}` }));
      expect(logger.lines[0]).toMatch(/^request a\?request b failed: \?\[31mc+ failed: Error: x\n/);
      expect(logger.lines[0]?.split('\n')[0]?.length).toBeLessThan(250);
    });

    it('in info() is one too', async () => {
      const logger = new RecordingLogger();
      const info = (): ServiceInfo => {
        throw new Error('no info');
      };
      await using pair = await loopback({ ...echo, info }, { server: { logger } });
      expect(await rejection(pair.client.getServiceInfo())).toMatchObject({ code: 'INTERNAL' });
      expect(logger.lines).toEqual([expect.stringContaining('no info')]);
    });

    it.each<[string, unknown, string]>([
      ['nothing', undefined, 'undefined is given where tensors by name are needed'],
      ['numbers', { y: [1, 2] }, "'y' is no tensor"],
      [
        'too few numbers',
        { y: { ...tensor([1, 2]), shape: [3] } },
        "tensor 'y' of shape [3] needs 3 elements, but its data has 2",
      ],
    ])('of a function that returns %s is the function’s, not the caller’s', async (_, outputs, message) => {
      await using pair = await loopback(new AsyncLambdaComputeFunction(() => outputs as Tensors));
      expect(await rejection(pair.client.compute(input))).toMatchObject({
        code: 'INTERNAL',
        message: expect.stringContaining(`the compute function gave no valid response: ${message}`),
      });
    });
  });

  describe('a message that is too large', () => {
    const sized: ComputeFunction = {
      async compute({ parameters }) {
        return { outputs: { y: tensor(new Uint8Array(Number(parameters?.bytes ?? 1))) } };
      },
    };
    const LIMIT = 10_000;
    /** Of gRPC calls it is grpc-js that refuses what comes, in its own words. */
    const BOTH_SIZES = /200\d\d.*10000.*raise (it|maxMessageLength) on client and server/;
    const tooLarge = { code: 'RESOURCE_EXHAUSTED', reason: 'MESSAGE_TOO_LARGE', retryable: false };

    it('is refused by the client that sends it, with both sizes', async () => {
      await using pair = await loopback(sized, { client: { maxMessageLength: LIMIT } });
      const large = tensor(new Uint8Array(20_000));
      const expected = {
        ...tooLarge,
        message: expect.stringMatching(
          /^the request has 200\d\d bytes, more than maxMessageLength allows \(10000\); raise it/,
        ),
      };
      expect(await rejection(pair.client.compute(large))).toMatchObject(expected);
      expect(await rejection(collect(pair.client.stream([{ inputs: { large } }])))).toMatchObject(expected);
      expect(pair.client.getStatistics().bytesSent).toBe(0);
    });

    it('is refused by the server that receives it, with both sizes', async () => {
      await using pair = await loopback(sized, { server: { maxMessageLength: LIMIT } });
      const large = tensor(new Uint8Array(20_000));
      const expected = {
        ...tooLarge,
        message: expect.stringMatching(BOTH_SIZES),
      };
      expect(await rejection(pair.client.compute(large))).toMatchObject(expected);
      expect(await rejection(collect(pair.client.stream([{ inputs: { large } }])))).toMatchObject(expected);
      await pair.client.compute(input);
    });

    it('is refused by the server that would send it, with both sizes', async () => {
      await using pair = await loopback(sized, { server: { maxMessageLength: LIMIT } });
      const parameters = { bytes: 20_000 };
      const expected = {
        ...tooLarge,
        message: expect.stringMatching(
          /^the response has 200\d\d bytes, more than maxMessageLength allows \(10000\); raise it/,
        ),
      };
      expect(await rejection(pair.client.compute(input, { parameters }))).toMatchObject(expected);
      expect(await rejection(collect(pair.client.stream([{ inputs: {}, parameters }])))).toMatchObject(expected);
      expect(pair.server.getStatistics()).toMatchObject({ succeeded: 0, failed: { RESOURCE_EXHAUSTED: 2 } });
    });

    it('is refused by the client that receives it, with both sizes', async () => {
      await using pair = await loopback(sized, { client: { maxMessageLength: LIMIT } });
      const parameters = { bytes: 20_000 };
      const expected = {
        ...tooLarge,
        message: expect.stringMatching(BOTH_SIZES),
      };
      expect(await rejection(pair.client.compute(input, { parameters }))).toMatchObject(expected);
      expect(await rejection(collect(pair.client.stream([{ inputs: {}, parameters }])))).toMatchObject(expected);
    });

    it('of exactly the limit is not', async () => {
      let bytes = 0;
      await using measuring = await loopback(echo);
      await measuring.client.compute(tensor(new Uint8Array(5_000)), { requestId: 'r' });
      bytes = measuring.client.getStatistics().bytesSent;
      await using pair = await loopback(echo, {
        client: { maxMessageLength: bytes + 100 },
        server: { maxMessageLength: bytes + 100 },
      });
      await pair.client.compute(tensor(new Uint8Array(5_000)), { requestId: 'r' });
      await using exact = await loopback(sized, { client: { maxMessageLength: bytes } });
      await exact.client.compute(tensor(new Uint8Array(5_000)), { requestId: 'r' });
      expect(await rejection(exact.client.compute(tensor(new Uint8Array(5_001)), { requestId: 'r' }))).toMatchObject(
        tooLarge,
      );
    });

    it('may be very large where the limit is', async () => {
      await using pair = await loopback(echo, {
        client: { maxMessageLength: 2 ** 32 - 1 },
        server: { maxMessageLength: 2 ** 32 - 1 },
      });
      expect(await pair.client.compute(input)).toEqual(input);
      expect((await pair.client.getServiceInfo()).maxMessageBytes).toBe(2 ** 32 - 1);
    });
  });
});

describe('a server', () => {
  it('that is not there is UNAVAILABLE, by its address', async () => {
    await using client = new GRPCComputeClient('127.0.0.1:1');
    const error = await rejection(client.compute(input));
    expect(error).toMatchObject({
      code: 'UNAVAILABLE',
      retryable: true,
      message: expect.stringMatching(
        /^the server at 127\.0\.0\.1:1 cannot be reached.*ECONNREFUSED.*check that it runs and try again$/,
      ),
    });
    expect(await rejection(client.connect({ timeoutMs: 50 }))).toMatchObject({
      code: 'UNAVAILABLE',
      message: 'no server answered at 127.0.0.1:1 within 50 ms; check the address, and that the server runs',
    });
    expect(await rejection(collect(client.stream([{ inputs: {} }])))).toMatchObject({ code: 'UNAVAILABLE' });
  });

  it('whose socket does not exist is too', async () => {
    await using client = new GRPCComputeClient(`unix:${join(tmpdir(), randomUUID())}`);
    expect(await rejection(client.compute(input))).toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining(client.address),
    });
  });

  it('that goes away during a call fails it, and is found again when it is back', async () => {
    const begun = deferred();
    await using pair = await overTcp({
      async compute({ inputs, parameters }, { signal }) {
        if (!parameters?.hang) return { outputs: inputs };
        begun.resolve();
        throw await abortReason(signal);
      },
    });
    await using wire = await Wire.to(pair.port);
    await using client = new GRPCComputeClient(wire.address);
    const call = rejection(client.compute(input, { parameters: { hang: true } }));
    await begun.promise;
    wire.cut();
    expect(await call).toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringMatching(new RegExp(`^the server at ${client.address} cannot be reached, or went away`)),
    });
    expect(await client.compute(input)).toEqual(input);
  });

  it('that comes back on its port is found by a client that retries', async () => {
    const first = new AsyncGRPCComputeServer({ computeFn: echo, port: 0 });
    const port = await first.start();
    await using client = new GRPCComputeClient(`127.0.0.1:${port}`, {
      retry: new FixedDelay({ maxAttempts: 500, delayMs: 20 }),
    });
    await client.compute(input);
    await first.stop();
    const call = client.compute(input);
    await using second = new AsyncGRPCComputeServer({ computeFn: echo, port });
    await second.start();
    expect(await call).toEqual(input);
  });

  it('that is none of ours says so', async () => {
    await using foreign = await foreignServer({});
    await using client = new GRPCComputeClient(foreign.address);
    expect(await rejection(client.compute(input))).toMatchObject({
      code: 'UNIMPLEMENTED',
      message: expect.stringMatching(new RegExp(`^the server at ${foreign.address} does not offer this call`)),
    });
    expect(await rejection(client.healthCheck())).toMatchObject({ code: 'UNIMPLEMENTED' });
  });

  it('that answers nonsense is INTERNAL, and its stream is cancelled', async () => {
    const cancelled = deferred();
    await using foreign = await foreignServer({
      Compute: (_: unknown, callback: (error: null, answer: Uint8Array) => void) => callback(null, Uint8Array.of(0xff)),
      GetServiceInfo: (_: unknown, callback: (error: null, answer: Uint8Array) => void) =>
        callback(null, Uint8Array.of(0xff)),
      ComputeStream(call: { write(answer: Uint8Array): void; on(event: 'cancelled', listener: () => void): void }) {
        call.on('cancelled', cancelled.resolve);
        call.write(Uint8Array.of(0xff));
      },
    });
    await using client = new GRPCComputeClient(foreign.address);
    const nonsense = { code: 'INTERNAL', message: expect.stringMatching(/^the server's answer is malformed: /) };
    expect(await rejection(client.compute(input))).toMatchObject(nonsense);
    expect(await rejection(client.getServiceInfo())).toMatchObject(nonsense);
    expect(await rejection(collect(client.stream([{ inputs: {} }])))).toMatchObject(nonsense);
    await cancelled.promise;
  });
});

describe('a client', () => {
  it.each(['localhost', '', ':50051', 'unix:', undefined, 50051, {}])(
    'cannot be made for the address %o',
    (address) => {
      expect(() => new GRPCComputeClient(address as string)).toThrow(
        expect.objectContaining({
          code: 'INVALID_ARGUMENT',
          message: expect.stringContaining('is no address: give host:port'),
        }),
      );
    },
  );

  it.each([
    [{ timeoutMs: Number.NaN }, 'timeoutMs must be 0 or more milliseconds; it is NaN'],
    [{ timeoutMs: -1 }, 'timeoutMs must be 0 or more milliseconds; it is -1'],
    [{ maxMessageLength: 0 }, 'maxMessageLength must be an integer from 1 to 4294967295; it is 0'],
    [
      { maxMessageLength: Number.POSITIVE_INFINITY },
      'maxMessageLength must be an integer from 1 to 4294967295; it is Infinity',
    ],
  ])('cannot be made with %o', (options, message) => {
    expect(() => new GRPCComputeClient('127.0.0.1:1', options)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message }),
    );
  });

  it('that is closed makes no more calls, and may be closed again', async () => {
    await using pair = await overTcp(echo);
    const { client } = pair;
    await client.close();
    await client.close();
    const closed = { code: 'FAILED_PRECONDITION', message: `the client of ${client.address} has been closed` };
    expect(await rejection(client.compute(input))).toMatchObject(closed);
    expect(await rejection(client.connect())).toMatchObject(closed);
    expect(await rejection(client.healthCheck())).toMatchObject(closed);
    expect(await rejection(client.getServiceInfo())).toMatchObject(closed);
    expect(await rejection(collect(client.stream([])))).toMatchObject(closed);
  });

  it('that is closed lets calls that are under way finish', async () => {
    const begun = deferred();
    const answer = deferred();
    await using pair = await overTcp({
      async compute({ inputs }) {
        begun.resolve();
        await answer.promise;
        return { outputs: inputs };
      },
    });
    const call = pair.client.compute(input);
    await begun.promise;
    await pair.client.close();
    answer.resolve();
    expect(await call).toEqual(input);
  });

  it('that is closed between two attempts of a call ends it', async () => {
    const client = new GRPCComputeClient('127.0.0.1:1', {
      retry: {
        nextDelayMs() {
          void client.close();
          return 0;
        },
      },
    });
    expect(await rejection(client.compute(input))).toMatchObject({ code: 'FAILED_PRECONDITION' });
  });

  it.each<[string, unknown, string]>([
    ['nothing', undefined, 'undefined is given where tensors by name are needed'],
    ['null', null, 'null is given where tensors by name are needed'],
    ['numbers', [1, 2], "'0' is no tensor: pass { dtype, shape, data }"],
    ['a typed array', Float32Array.of(1), "'0' is no tensor"],
    [
      'a tensor that is none',
      { x: { ...input, shape: [2] } },
      "tensor 'x' of shape [2] needs 2 elements, but its data has 1",
    ],
  ])('cannot send %s', async (_, tensors, message) => {
    await using pair = await overTcp(echo);
    expect(await rejection(pair.client.compute(tensors as Tensors))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining(message),
    });
    expect(pair.client.getStatistics()).toMatchObject({ inFlight: 0, failed: { INVALID_ARGUMENT: 1 } });
  });

  it('cannot send a request whose parameters contain themselves', async () => {
    await using pair = await overTcp(echo);
    const parameters: Record<string, never> = {};
    Object.assign(parameters, { parameters });
    expect(await rejection(pair.client.compute(input, { parameters }))).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('wants exactly one output for one input, and says which there are', async () => {
    await using pair = await overTcp({
      async compute({ parameters }) {
        const names = parameters?.names as string[];
        return { outputs: Object.fromEntries(names.map((name) => [name, tensor([1])])) };
      },
    });
    const wrong = async (...names: string[]) => rejection(pair.client.compute(input, { parameters: { names } }));
    expect(await wrong('a', 'b')).toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringMatching(/not exactly one output but: a, b; pass named tensors/),
    });
    expect(await wrong()).toMatchObject({ message: expect.stringContaining('but: none') });
    expect((await pair.client.compute(input, { parameters: { names: ['any'] } })).data).toEqual(Float32Array.of(1));
  });
});

describe('retrying', () => {
  it('makes a call again when the server was too busy, with the time that it asked for', async () => {
    let attempts = 0;
    const waits: number[] = [];
    await using pair = await overTcp(
      {
        async compute({ inputs }) {
          if (++attempts < 3)
            throw new CommError('RESOURCE_EXHAUSTED', 'busy', { reason: 'QUEUE_FULL', retryAfterMs: 2 });
          return { outputs: inputs };
        },
      },
      {
        client: {
          retry: {
            nextDelayMs(_, { retryAfterMs }) {
              waits.push(retryAfterMs ?? 0);
              return 0;
            },
          },
        },
      },
    );
    expect(valueAt(await pair.client.compute({ x: input }), 'x')).toBe(1);
    expect(attempts).toBe(3);
    expect(waits).toEqual([2, 2]);
    expect(pair.client.getStatistics()).toMatchObject({ requests: 1, succeeded: 1 });
    expect(pair.server.getStatistics()).toMatchObject({ requests: 3, failed: { RESOURCE_EXHAUSTED: 2 } });
  });

  it('is not done unless it is asked for', async () => {
    await using pair = await overTcp(throwing(new CommError('UNAVAILABLE', 'once')));
    await rejection(pair.client.compute(input));
    expect(pair.server.getStatistics().requests).toBe(1);
  });
});
