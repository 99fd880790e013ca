import { once } from 'node:events';
import { connect } from 'node:net';
import { type ComputeFunction, tensor } from '@splitlearn/comm';
import { type Loopback, loopback } from '@splitlearn/comm/testing';
import fc from 'fast-check';
import { Writer } from 'protobufjs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { google, splitlearn } from '#proto';
import { RecordingLogger } from './support/functions.js';
import { http2Call, RawClient, readRaw, Wire } from './support/raw-client.js';

import v1 = splitlearn.comm.v1;

// Whatever bytes come, the caller is told what is wrong with them, and the next call on the same connection works.

const { DTYPE_FLOAT32, DTYPE_UINT8, DTYPE_BOOL, DTYPE_STRING } = v1.DType;
const logger = new RecordingLogger();
let computed = 0;
const counting: ComputeFunction = {
  async compute({ inputs }) {
    computed++;
    return { outputs: inputs };
  },
};

let pair: Loopback;
let wire: Wire;
let raw: RawClient;

beforeAll(async () => {
  pair = await loopback(counting, { server: { logger, maxMessageLength: 1 << 20 } });
  wire = await Wire.to(pair.port);
  raw = new RawClient(wire.address);
});
afterAll(async () => {
  await raw[Symbol.asyncDispose]();
  await wire[Symbol.asyncDispose]();
  await pair.close();
});
afterEach(async () => {
  const before = computed;
  expect(
    await raw.unary('Compute', requestOf({ name: 'x', dtype: DTYPE_FLOAT32, shape: [1], data: new Uint8Array(4) })),
  ).toMatchObject({
    code: 'OK',
  });
  expect(computed).toBe(before + 1);
  expect(wire.connections).toBe(1);
  expect(logger.lines).toEqual([]);
});

function requestOf(...inputs: v1.ITensor[]): Uint8Array {
  return v1.ComputeRequest.encode({ inputs }).finish();
}

/** Parameters that are lists in lists, as deep as is asked. */
function nestedParameters(depth: number): Uint8Array {
  let value = google.protobuf.Value.encode({ numberValue: 1 }).finish();
  for (let level = 0; level < depth; level++) {
    const list = Writer.create().uint32(0x0a).bytes(value).finish(); // ListValue.values
    value = Writer.create().uint32(0x32).bytes(list).finish(); // Value.list_value
  }
  const entry = Writer.create().uint32(0x0a).string('deep').uint32(0x12).bytes(value).finish();
  const struct = Writer.create().uint32(0x0a).bytes(entry).finish();
  return Writer.create().uint32(0x22).bytes(struct).finish(); // ComputeRequest.parameters
}

/** How a refusal begins that says what is wrong. */
const BLAME = /^(the bytes are no ComputeRequest: |tensor '|there (are two tensors|is no output))/;

/** A field of a type that belongs to no field of its number. */
const wrongWireType = Writer.create()
  .uint32((3 << 3) | 0)
  .uint32(5)
  .finish();

describe('a request', () => {
  it.each<[string, Uint8Array, string]>([
    [
      'with too few bytes',
      requestOf({ name: 'ids', dtype: DTYPE_FLOAT32, shape: [2, 2], data: new Uint8Array(15) }),
      "tensor 'ids' of dtype float32 and shape [2,2] needs 16 bytes, but has 15",
    ],
    [
      'with too many bytes',
      requestOf({ name: 'ids', dtype: DTYPE_FLOAT32, shape: [], data: new Uint8Array(8) }),
      "tensor 'ids' of dtype float32 and shape [] needs 4 bytes, but has 8",
    ],
    [
      'with a negative dimension',
      requestOf({ name: 'ids', dtype: DTYPE_UINT8, shape: [-1, -4], data: new Uint8Array(4) }),
      "tensor 'ids' has shape [-1,-4]: every dimension must be an integer from 0 to 2^53 - 1",
    ],
    [
      'with a size beyond 2^53',
      requestOf({ name: 'ids', dtype: DTYPE_UINT8, shape: [2 ** 27, 2 ** 27] }),
      "tensor 'ids' has shape [134217728,134217728]: its size overflows",
    ],
    [
      'with a size beyond 2^53, and then nothing',
      requestOf({ name: 'ids', dtype: DTYPE_UINT8, shape: [2 ** 27, 2 ** 27, 0] }),
      "tensor 'ids' has shape [134217728,134217728,0]: its size overflows",
    ],
    [
      'with a dimension beyond 2^53',
      requestOf({ name: 'ids', dtype: DTYPE_UINT8, shape: [2 ** 62] }),
      "tensor 'ids' has shape [4611686018427388000]: every dimension must be an integer from 0 to 2^53 - 1",
    ],
    [
      'with a hundred thousand dimensions',
      requestOf({
        name: 'ids',
        dtype: DTYPE_UINT8,
        shape: new Array<number>(100_000).fill(1),
        data: new Uint8Array(1),
      }),
      "tensor 'ids' has 100000 dimensions; at most 32 are supported",
    ],
    ['without a dtype', requestOf({ name: 'ids' }), "tensor 'ids' has the unknown dtype number 0"],
    [
      'with a dtype from the future',
      requestOf({ name: 'ids', dtype: 99 as v1.DType }),
      "tensor 'ids' has the unknown dtype number 99",
    ],
    [
      'with an encoding from the future',
      requestOf({ name: 'ids', dtype: DTYPE_UINT8, encoding: 99 as v1.Encoding }),
      "tensor 'ids' has the unknown encoding 99",
    ],
    [
      'with a bool of 7',
      requestOf({ name: 'mask', dtype: DTYPE_BOOL, shape: [2], data: Uint8Array.of(1, 7) }),
      "tensor 'mask' of dtype bool has the byte 7 at index 1",
    ],
    [
      'with fewer strings than it says',
      requestOf({ name: 'text', dtype: DTYPE_STRING, shape: [2 ** 40], data: new Uint8Array(8) }),
      "tensor 'text' of dtype string and shape [1099511627776] needs at least 4398046511104 bytes, but has 8",
    ],
    [
      'with a string that lies about its length',
      requestOf({ name: 'text', dtype: DTYPE_STRING, shape: [1], data: Uint8Array.of(255, 255, 255, 255, 97) }),
      "tensor 'text' of dtype string: the string at index 0 needs 4294967299 bytes, but 5 are left",
    ],
    [
      'with a string that is no UTF-8',
      requestOf({ name: 'text', dtype: DTYPE_STRING, shape: [1], data: Uint8Array.of(1, 0, 0, 0, 0xff) }),
      "tensor 'text' of dtype string: the string at index 0 is not UTF-8",
    ],
    [
      'with two tensors of one name',
      requestOf({ name: 'a', dtype: DTYPE_UINT8, shape: [0] }, { name: 'a', dtype: DTYPE_UINT8, shape: [0] }),
      "there are two tensors named 'a'",
    ],
    [
      'that is cut off',
      requestOf({ name: 'a', dtype: DTYPE_UINT8, shape: [0] }).subarray(0, -1),
      'the bytes are no ComputeRequest: ',
    ],
    ['that is nested a thousand deep', nestedParameters(1_000), 'the bytes are no ComputeRequest: max depth exceeded'],
    ['with a model name that is no UTF-8', Uint8Array.of(0x12, 0x02, 0xc3, 0x28), 'the bytes are no ComputeRequest: '],
    [
      'with a field that ends beyond the message',
      Uint8Array.of(0x12, 0xff, 0xff, 0xff, 0xff, 0x07),
      'the bytes are no ComputeRequest: ',
    ],
  ])('%s is refused', async (_, bytes, details) => {
    const before = computed;
    const answer = await raw.unary('Compute', bytes);
    expect(answer).toMatchObject({ code: 'INVALID_ARGUMENT', details: expect.stringContaining(details) });
    expect(computed).toBe(before);
  });

  it('with a field of another type is one without that field', async () => {
    expect(await raw.unary('Compute', wrongWireType)).toMatchObject({ code: 'OK' });
  });

  it('with a name that is too long for an error is refused, and the connection lives', async () => {
    const bytes = requestOf({ name: 'ü'.repeat(400_000), dtype: DTYPE_FLOAT32, shape: [2], data: new Uint8Array(7) });
    const answer = await raw.unary('Compute', bytes);
    expect(answer.code).toBe('INVALID_ARGUMENT');
    expect(answer.details).toMatch(/^tensor 'ü+ … ü+' of dtype float32 and shape \[2\] needs 8 bytes, but has 7$/);
  });

  it('beyond the size that the server takes is refused, and both sizes named', async () => {
    const bytes = requestOf({ name: 'a', dtype: DTYPE_UINT8, shape: [2 << 20], data: new Uint8Array(2 << 20) });
    const answer = await raw.unary('Compute', bytes);
    expect(answer.code).toBe('RESOURCE_EXHAUSTED');
    expect(answer.details).toContain(String(bytes.byteLength));
    expect(answer.details).toContain(String(1 << 20));
  });

  it('that claims terabytes is refused before a byte is allocated for it', async () => {
    // A real allocation of these would succeed, and be counted, because pages that nobody touches cost nothing.
    const claims = [DTYPE_FLOAT32, DTYPE_UINT8, DTYPE_BOOL, DTYPE_STRING].map((dtype) =>
      requestOf({ name: 'a', dtype, shape: [2 ** 28], data: new Uint8Array(16) }),
    );
    const before = process.memoryUsage();
    for (let times = 0; times < 10; times++) {
      for (const bytes of claims) expect((await raw.unary('Compute', bytes)).code).toBe('INVALID_ARGUMENT');
    }
    const after = process.memoryUsage();
    expect(after.arrayBuffers - before.arrayBuffers).toBeLessThan(2 ** 27);
    expect(after.rss - before.rss).toBeLessThan(2 ** 27);
  });

  it('of random bytes, some thousand times, is refused or is a strange request, and nothing else', async () => {
    const real = v1.ComputeRequest.encode({
      requestId: 'r',
      model: 'm',
      inputs: [
        { name: 'a', dtype: DTYPE_FLOAT32, shape: [2], data: new Uint8Array(8) },
        { name: 'b', dtype: DTYPE_STRING, shape: [1], data: Uint8Array.of(1, 0, 0, 0, 97) },
      ],
      parameters: { fields: { p: { listValue: { values: [{ numberValue: 1 }, { stringValue: 's' }] } } } },
      outputs: ['a'],
    }).finish();
    const damaged = fc
      .array(fc.tuple(fc.nat(real.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 4 })
      .map((changes) => {
        const bytes = Uint8Array.from(real);
        for (const [at, byte] of changes) bytes[at] = byte;
        return bytes;
      });
    const cut = fc.nat(real.byteLength).map((length) => real.subarray(0, length));
    const batches = fc.array(fc.oneof(fc.uint8Array({ maxLength: 80 }), damaged, cut), {
      minLength: 100,
      maxLength: 100,
    });
    await fc.assert(
      fc.asyncProperty(batches, async (batch) => {
        const answers = await Promise.all(batch.map((bytes) => raw.unary('Compute', bytes)));
        const unexpected = answers.filter(
          ({ code, details }) => code !== 'OK' && !(code === 'INVALID_ARGUMENT' && BLAME.test(details)),
        );
        expect(unexpected).toEqual([]);
      }),
      { numRuns: 30 },
    );
  });
});

describe('a stream', () => {
  it('with a malformed message in its middle is answered up to there, then refused', async () => {
    const stream = raw.stream();
    const outcome = readRaw(stream);
    stream.write(requestOf({ name: 'a', dtype: DTYPE_UINT8, shape: [1], data: Uint8Array.of(1) }));
    await once(stream, 'data');
    stream.write(requestOf({ name: 'b', dtype: DTYPE_UINT8, shape: [5], data: Uint8Array.of(1) }));
    expect(await outcome).toMatchObject({
      messages: [expect.any(Buffer)],
      code: 'INVALID_ARGUMENT',
      details: "tensor 'b' of dtype uint8 and shape [5] needs 5 bytes, but has 1",
    });
  });

  it('that begins malformed is refused', async () => {
    const stream = raw.stream();
    const outcome = readRaw(stream);
    stream.write(Uint8Array.of(0xff));
    expect(await outcome).toMatchObject({ messages: [], code: 'INVALID_ARGUMENT' });
  });
});

describe('a connection', () => {
  it('that speaks another protocol is closed, and others go on', async () => {
    const socket = connect(pair.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.resume();
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'close');
  });

  it('whose message claims 4 GiB gets an answer, and the claim no memory', async () => {
    const before = process.memoryUsage().arrayBuffers;
    const body = Uint8Array.of(0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3);
    const call = http2Call(pair.port, 'Compute', { body, end: false });
    expect(await call.outcome).toEqual({
      code: 'RESOURCE_EXHAUSTED',
      details: expect.stringContaining('4294967295'),
    });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 27);
    call.close();
  });

  it('that is cut in the middle of a request leaves nothing behind', async () => {
    await using cuttable = await Wire.to(pair.port);
    await using client = new RawClient(cuttable.address);
    const stream = client.stream();
    const outcome = readRaw(stream);
    stream.write(requestOf({ name: 'a', dtype: DTYPE_UINT8, shape: [1], data: Uint8Array.of(1) }));
    await once(stream, 'data');
    cuttable.cut();
    expect((await outcome).code).toBe('UNAVAILABLE');
    expect(await pair.client.compute(tensor([1]))).toMatchObject({ dtype: 'float32' });
  });
});
