import { gzipSync } from 'node:zlib';
import {
  type ComputeFunction,
  GRPCComputeClient,
  type GRPCComputeClientOptions,
  supportedEncodings,
  type Tensor,
  type TensorEncoding,
  type Tensors,
  tensor,
} from '@splitlearn/comm';
import { FaultRelay, type Loopback, loopback } from '@splitlearn/comm/testing';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { bits } from './support/arbitraries.js';
import { collect, rejection } from './support/deferred.js';
import { foreignServer } from './support/foreign-server.js';
import { echo, RecordingLogger, requestsOf } from './support/functions.js';
import { RawClient } from './support/raw-client.js';

import v1 = splitlearn.comm.v1;

const { ENCODING_RAW, ENCODING_FLOAT16, ENCODING_GZIP } = v1.Encoding;
const { DTYPE_FLOAT32, DTYPE_UINT8 } = v1.DType;
/** One that does not exist yet. */
const ENCODING_FUTURE = 77 as v1.Encoding;
const MIB = 2 ** 20;
const ELEMENTS = 10_000;

/** The same numbers each time, some of them very small, with runs that a compressor finds. */
function activations(seed: number): Tensor<'float32'> {
  let state = seed;
  const data = Float32Array.from({ length: ELEMENTS }, (_, index) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    if (index % 3 !== 0) return 0;
    return (state / 2 ** 31 - 1) * 10 ** ((index % 7) - 3);
  });
  return { dtype: 'float32', shape: [100, 100], data };
}

const there = activations(1);
const back = activations(2);

/** What an element may be off by. */
const BOUNDS: Record<Exclude<TensorEncoding, 'raw'>, (value: number, largest: number) => number> = {
  float16: (value) => Math.max(2 ** -11 * Math.abs(value), 2 ** -25),
  bfloat16: (value) => Math.max(2 ** -8 * Math.abs(value), 2 ** -134),
  int8: (_, largest) => (largest / 254) * (1 + 2 ** -15),
  gzip: () => 0,
  zstd: () => 0,
};
/** Bytes on the wire over bytes of the tensor, at the most. */
const SHARES = { float16: 0.51, bfloat16: 0.51, int8: 0.26, gzip: 0.6, zstd: 0.6 };

function expectWithin(encoding: keyof typeof BOUNDS, sent: Tensor, received: Tensor | undefined): void {
  expect([received?.dtype, received?.shape]).toEqual([sent.dtype, sent.shape]);
  const values = sent.data as Float32Array;
  const found = received?.data as Float32Array;
  let worst = 0;
  values.forEach((value, index) => {
    const block = values.subarray(index - (index % 256), index - (index % 256) + 256);
    const largest = encoding === 'int8' ? block.reduce((most, other) => Math.max(most, Math.abs(other)), 0) : 0;
    worst = Math.max(worst, Math.abs((found[index] as number) - value) - BOUNDS[encoding](value, largest));
  });
  expect(worst).toBeLessThanOrEqual(0);
}

/** Answers with a tensor of its own, and keeps what it was asked. */
function keeping(answer: Tensors) {
  const seen: Tensors[] = [];
  const computeFn: ComputeFunction = {
    async compute({ inputs }) {
      seen.push(inputs);
      return { outputs: answer };
    },
  };
  return { seen, computeFn };
}

function traffic({ client, server }: Loopback) {
  const { bytesSent, bytesReceived } = client.getStatistics();
  const { bytesSent: answered, bytesReceived: asked } = server.getStatistics();
  expect([bytesSent, bytesReceived]).toEqual([asked, answered]);
  return { bytesSent, bytesReceived };
}

const here = supportedEncodings();
const encodings = (Object.keys(BOUNDS) as (keyof typeof BOUNDS)[]).map((encoding) => ({ encoding }));

describe.each([
  ['Exchange', true],
  ['a gRPC call each', false],
])('over %s', (_, exchange) => {
  const options = (more: GRPCComputeClientOptions) => ({ client: { exchange, ...more } });

  describe.each(encodings)('$encoding', ({ encoding }) => {
    const supported = here.includes(encoding);

    it.runIf(supported)('travels both ways, is as exact as it says, and smaller', async () => {
      const { seen, computeFn } = keeping({ back });
      await using pair = await loopback(computeFn, options({ encoding }));
      const outputs = await pair.client.compute({ there });
      expectWithin(encoding, there, seen[0]?.there);
      expectWithin(encoding, back, outputs.back);
      const { bytesSent, bytesReceived } = traffic(pair);
      const most = SHARES[encoding] * there.data.byteLength;
      expect(Math.max(bytesSent, bytesReceived)).toBeLessThan(most);
    });

    it.runIf(supported)('leaves everything else as it is, to the bit', async () => {
      const inputs: Tensors = {
        doubles: tensor(Float64Array.of(Math.PI, Number.NaN, -0)),
        longs: tensor(BigInt64Array.of(-1n, 2n ** 62n), [2, 1]),
        halves: tensor([0.1, 65504], [2], 'float16'),
        flags: tensor([true, false]),
        words: tensor(['', 'ß', 'x'.repeat(5_000)]),
        scalar: tensor(1),
        empty: tensor([], [0, 3], 'float32'),
        beyond: tensor(Float32Array.of(3e38, Number.POSITIVE_INFINITY, 1)),
      };
      await using pair = await loopback(echo, options({ encoding }));
      const outputs = await pair.client.compute(inputs);
      expect(Object.keys(outputs)).toEqual(Object.keys(inputs));
      for (const name of Object.keys(inputs).filter((one) => one !== 'scalar' && one !== 'beyond')) {
        expect(bits(outputs[name] as Tensor)).toEqual(bits(inputs[name] as Tensor));
      }
      expect(outputs.scalar).toEqual(inputs.scalar);
      // 3e38 is beyond float16, rounds in bfloat16, and in int8 there is no infinity.
      const { data } = outputs.beyond as Tensor<'float32'>;
      expect([...data.subarray(1)]).toEqual([Number.POSITIVE_INFINITY, 1]);
      expect(Math.abs((data[0] as number) / 3e38 - 1)).toBeLessThanOrEqual(2 ** -8);
    });

    it.runIf(supported)('is that of a session as well', async () => {
      const seen: Tensors[] = [];
      const session: ComputeFunction = {
        ...echo,
        async *stream(requests) {
          for await (const { inputs } of requests) {
            seen.push(inputs);
            yield { outputs: { back } };
          }
        },
      };
      await using pair = await loopback(session, options({ encoding }));
      const answers = await collect(pair.client.stream(requestsOf({ there }, { there }, { there })));
      expect([seen.length, answers.length]).toEqual([3, 3]);
      for (const inputs of seen) expectWithin(encoding, there, inputs.there);
      for (const { outputs } of answers) expectWithin(encoding, back, outputs.back);
      const { bytesSent, bytesReceived } = traffic(pair);
      expect(Math.max(bytesSent, bytesReceived)).toBeLessThan(3 * SHARES[encoding] * there.data.byteLength);
    });
  });

  it('is raw unless told otherwise', async () => {
    await using pair = await loopback(echo, options({}));
    expect(bits((await pair.client.compute({ there })).there as Tensor)).toEqual(bits(there));
    expect(traffic(pair).bytesSent).toBeGreaterThan(there.data.byteLength);
  });

  it('compresses tensors that are large in other threads, many at once', async () => {
    const large = tensor(new Float32Array(MIB).map((__, index) => index >> 8));
    await using pair = await loopback(echo, options({ encoding: 'gzip' }));
    const answers = await Promise.all(Array.from({ length: 4 }, () => pair.client.compute({ large, there })));
    for (const { large: one, there: other } of answers) {
      const { buffer, byteOffset, byteLength } = (one as Tensor<'float32'>).data;
      expect(Buffer.from(buffer, byteOffset, byteLength).equals(new Uint8Array(large.data.buffer))).toBe(true);
      expect(bits(other as Tensor)).toEqual(bits(there));
    }
    expect(traffic(pair).bytesReceived).toBeLessThan(large.data.byteLength);
  });

  it('blames who is wrong, as it does without', async () => {
    for (const encoding of ['raw', 'gzip', 'auto'] as const) {
      const logger = new RecordingLogger();
      const wrong: ComputeFunction = {
        async compute({ parameters }) {
          return { outputs: parameters?.half ? { y: tensor(['\ud800']) } : ({ y: [1, 2] } as unknown as Tensors) };
        },
      };
      await using pair = await loopback(wrong, { ...options({ encoding }), server: { logger } });
      for (const half of [false, true]) {
        expect(await rejection(pair.client.compute({ there }, { parameters: { half } }))).toMatchObject({
          code: 'INTERNAL',
          message: expect.stringContaining('the compute function gave no valid response'),
        });
      }
      for (const inputs of [{ x: [1] }, { x: null }, { x: tensor(['\ud800']) }, undefined]) {
        expect(await rejection(pair.client.compute(inputs as unknown as Tensors))).toMatchObject({
          name: 'CommError',
          code: 'INVALID_ARGUMENT',
        });
      }
    }
  });

  it('is decided for each call: one that is cancelled, or has no time, takes no other along', async () => {
    await using pair = await loopback(echo, options({ encoding: 'gzip' }));
    const controller = new AbortController();
    const cancelled = rejection(pair.client.compute({ there }, { signal: controller.signal }));
    const late = rejection(pair.client.compute({ there }, { timeoutMs: 0 }));
    const others = [pair.client.compute({ there }), pair.client.compute({ there })];
    controller.abort();
    expect(await cancelled).toMatchObject({ code: 'CANCELLED' });
    expect(await late).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    for (const other of others) expect(bits((await other).there as Tensor)).toEqual(bits(there));
  });

  describe('an answer that decompresses to more than it may', () => {
    it.each<[string, v1.ITensor, object]>([
      [
        'less than there is',
        { dtype: DTYPE_UINT8, shape: [1000], data: gzipSync(new Uint8Array(MIB)) },
        { code: 'INTERNAL', message: expect.stringMatching(/needs 1000 bytes, but its \d+ bytes of gzip decompress/) },
      ],
      [
        'more than there is',
        { dtype: DTYPE_UINT8, shape: [MIB], data: gzipSync(new Uint8Array(1000)) },
        { code: 'INTERNAL', message: expect.stringMatching(/needs 1048576 bytes, but .* decompress to 1000/) },
      ],
      [
        'more than is allowed',
        { dtype: DTYPE_UINT8, shape: [5 * MIB], data: gzipSync(new Uint8Array(5 * MIB)) },
        {
          code: 'RESOURCE_EXHAUSTED',
          reason: 'MESSAGE_TOO_LARGE',
          message: expect.stringMatching(/has 5242880 bytes, more than the 4194304 bytes/),
        },
      ],
    ])('and says that it has %s is refused, and the next call works', async (__, output, error) => {
      let bomb = true;
      await using server = await foreignServer({
        Compute: (_call: unknown, callback: (error: null, answer: Uint8Array) => void) => {
          const outputs = bomb ? [{ name: 'y', encoding: ENCODING_GZIP, ...output }] : [];
          callback(null, v1.ComputeResponse.encode({ outputs }).finish());
        },
      });
      await using client = new GRPCComputeClient(server.address, { exchange, maxMessageLength: 4 * MIB });
      expect(await rejection(client.compute({ there }))).toMatchObject(error);
      bomb = false;
      expect(await client.compute({ there })).toEqual({});
    });
  });
});

describe('a request that decompresses to more than it may', () => {
  const zeros = (bytes: number) => gzipSync(new Uint8Array(bytes));

  it.each<[string, v1.ITensor[], string, RegExp]>([
    [
      'it says',
      [{ name: 'x', dtype: DTYPE_UINT8, shape: [8], data: zeros(64 * MIB) }],
      'INVALID_ARGUMENT',
      /^tensor 'x' of dtype uint8 and shape \[8\] needs 8 bytes, but its \d+ bytes of gzip decompress to more$/,
    ],
    [
      'it says, in another thread',
      [{ name: 'x', dtype: DTYPE_UINT8, shape: [MIB], data: zeros(64 * MIB) }],
      'INVALID_ARGUMENT',
      /needs 1048576 bytes, but its \d+ bytes of gzip decompress to more$/,
    ],
    [
      'a message may have',
      [{ name: 'x', dtype: DTYPE_FLOAT32, shape: [MIB], data: zeros(4 * MIB) }],
      'RESOURCE_EXHAUSTED',
      /^tensor 'x' .* has 4194304 bytes, more than the 2097152 bytes that are allowed$/,
    ],
    [
      'a message may have, together with others',
      ['a', 'b', 'c'].map((name) => ({ name, dtype: DTYPE_UINT8, shape: [MIB], data: zeros(MIB) })),
      'RESOURCE_EXHAUSTED',
      /^tensor 'c' .* has 1048576 bytes, more than the 0 bytes that are allowed$/,
    ],
  ])('than %s is refused with both sizes, and the next call works', async (_, tensors, code, message) => {
    let computed = 0;
    const counting: ComputeFunction = {
      async compute({ inputs }) {
        computed++;
        return { outputs: inputs };
      },
    };
    await using pair = await loopback(counting, { server: { maxMessageLength: 2 * MIB } });
    await using raw = new RawClient(`127.0.0.1:${pair.port}`);
    const inputs = tensors.map((one) => ({ ...one, encoding: ENCODING_GZIP }));
    const answer = await raw.unary('Compute', v1.ComputeRequest.encode({ inputs }).finish());
    expect(answer).toMatchObject({ code, details: expect.stringMatching(message) });
    expect(computed).toBe(0);
    const good = { name: 'x', dtype: DTYPE_UINT8, shape: [MIB], encoding: ENCODING_GZIP, data: zeros(MIB) };
    expect(await raw.unary('Compute', v1.ComputeRequest.encode({ inputs: [good] }).finish())).toMatchObject({
      code: 'OK',
    });
    expect(computed).toBe(1);
  });
});

describe('a server of another make', () => {
  /** Notes which encodings it is sent, and which it is asked for. */
  async function noting(info?: v1.IServiceInfo) {
    const requests: { inputs: number[]; outputEncoding: number }[] = [];
    const server = await foreignServer({
      ...(info && {
        GetServiceInfo: (_: unknown, callback: (error: null, answer: Uint8Array) => void) =>
          callback(null, v1.ServiceInfo.encode(info).finish()),
      }),
      Compute: ({ request }: { request: Uint8Array }, callback: (error: null, answer: Uint8Array) => void) => {
        const { inputs, outputEncoding } = v1.ComputeRequest.decode(request);
        requests.push({ inputs: inputs.map(({ encoding }) => encoding ?? ENCODING_RAW), outputEncoding });
        callback(null, v1.ComputeResponse.encode({}).finish());
      },
    });
    return { server, requests };
  }

  it.each<[TensorEncoding | 'auto', v1.IServiceInfo | undefined]>([
    ['gzip', {}],
    ['float16', { encodings: [ENCODING_GZIP] }],
    ['int8', { encodings: [ENCODING_FUTURE] }],
    ['auto', {}],
    ['raw', { encodings: [ENCODING_GZIP] }],
    ['gzip', undefined],
  ])('is sent nothing as %s, and asked for nothing, where it says %j', async (encoding, info) => {
    const { server, requests } = await noting(info);
    await using _ = server;
    await using client = new GRPCComputeClient(server.address, { encoding });
    await client.compute({ there });
    await client.compute({ there });
    expect(requests).toEqual(new Array(2).fill({ inputs: [ENCODING_RAW], outputEncoding: ENCODING_RAW }));
  });

  it('is sent and asked for what it says that it can read', async () => {
    const { server, requests } = await noting({ encodings: [ENCODING_FUTURE, ENCODING_FLOAT16] });
    await using _ = server;
    await using client = new GRPCComputeClient(server.address, { encoding: 'float16' });
    await client.compute({ there, ids: tensor([1, 2], [2], 'int32') });
    expect(requests).toEqual([{ inputs: [ENCODING_FLOAT16, ENCODING_RAW], outputEncoding: ENCODING_FLOAT16 }]);
  });
});

describe('auto', () => {
  const CALLS = 3;
  /** Compresses to a few percent, and float16 would lose nothing of it. */
  const smooth = tensor(new Float32Array(64 * 1024).map((_, index) => index >> 10));

  it('compresses where the link turns out to be slow, there and back', async () => {
    await using pair = await loopback(echo);
    await using relay = new FaultRelay(`127.0.0.1:${pair.port}`, { bytesPerSecond: 4e6 });
    await using client = new GRPCComputeClient(await relay.start(), { encoding: 'auto' });
    await client.connect();
    const bytes: [number, number][] = [];
    for (let call = 0; call < CALLS; call++) {
      const before = client.getStatistics();
      expect(bits((await client.compute({ smooth })).smooth as Tensor)).toEqual(bits(smooth));
      const after = client.getStatistics();
      bytes.push([after.bytesSent - before.bytesSent, after.bytesReceived - before.bytesReceived]);
    }
    const [first, ...others] = bytes as [[number, number], ...[number, number][]];
    for (const raw of first) expect(raw).toBeGreaterThan(smooth.data.byteLength);
    for (const compressed of others.flat()) expect(compressed).toBeLessThan(smooth.data.byteLength / 10);
  });

  it('learns it from requests as well, where answers are small', async () => {
    const { computeFn } = keeping({ y: tensor([1]) });
    await using pair = await loopback(computeFn);
    await using relay = new FaultRelay(`127.0.0.1:${pair.port}`, { bytesPerSecond: 4e6 });
    await using client = new GRPCComputeClient(await relay.start(), { encoding: 'auto' });
    await client.connect();
    await client.compute({ smooth });
    const { bytesSent } = client.getStatistics();
    await client.compute({ smooth });
    expect(client.getStatistics().bytesSent - bytesSent).toBeLessThan(smooth.data.byteLength / 10);
  });

  it('sends raw what does not get smaller, however slow the link', async () => {
    let state = 1;
    const noise = tensor(
      Uint8Array.from({ length: 128 * 1024 }, () => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state >>> 24;
      }),
    );
    await using pair = await loopback(echo);
    await using relay = new FaultRelay(`127.0.0.1:${pair.port}`, { bytesPerSecond: 4e6 });
    await using client = new GRPCComputeClient(await relay.start(), { encoding: 'auto' });
    for (let call = 0; call < CALLS; call++) await client.compute({ noise });
    expect(client.getStatistics().bytesSent).toBeGreaterThan(CALLS * 128 * 1024);
  });

  it('sends raw within this machine', async () => {
    // As it takes fractions of a second even where the machine has much else to do, no compressor could keep up.
    const large = tensor(new Float32Array(2 * MIB).map((_, index) => Math.sin(index)));
    await using pair = await loopback(echo, { client: { encoding: 'auto' } });
    await pair.client.connect();
    for (let call = 0; call < CALLS; call++) await pair.client.compute({ large });
    expect(pair.client.getStatistics().bytesSent).toBeGreaterThan(CALLS * large.data.byteLength);
  });
});
