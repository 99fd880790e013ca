import { fileURLToPath } from 'node:url';
import { Metadata } from '@grpc/grpc-js';
import { GRPCComputeClient, type Tensor, type Tensors } from '@splitlearn/comm';
import { loopback } from '@splitlearn/comm/testing';
import fc from 'fast-check';
import protobuf from 'protobufjs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bits, type DTYPES, tensor } from './support/arbitraries.js';
import { foreignServer } from './support/foreign-server.js';
import { RawClient } from './support/raw-client.js';

// The wire format, seen from outside: a client that knows nothing but the .proto file, as one in another language would.

const protoFile = fileURLToPath(new URL('../proto/splitlearn/comm/v1/compute.proto', import.meta.url));
const root = new protobuf.Root();
const resolve = root.resolvePath;
root.resolvePath = (origin, target) =>
  target.startsWith('google/') ? target : (resolve.call(root, origin, target) ?? target);
root.loadSync(protoFile, { keepCase: false });
const Request = root.lookupType('splitlearn.comm.v1.ComputeRequest');
const Response = root.lookupType('splitlearn.comm.v1.ComputeResponse');

interface PlainTensor {
  readonly name: string;
  readonly dtype: string;
  readonly shape: string[];
  readonly encoding: string;
  readonly data: Buffer;
}

/** A tensor as the .proto file's comments say that it is written. */
function toPlain(name: string, { dtype, shape, data }: Tensor): PlainTensor {
  const bytes =
    dtype === 'string'
      ? Buffer.concat(
          data.map((text) => {
            const utf8 = Buffer.from(text, 'utf8');
            const length = Buffer.alloc(4);
            length.writeUInt32LE(utf8.length);
            return Buffer.concat([length, utf8]);
          }),
        )
      : Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return {
    name,
    dtype: `DTYPE_${dtype.toUpperCase()}`,
    shape: shape.map(String),
    encoding: 'ENCODING_RAW',
    data: bytes,
  };
}

interface PlainMessage {
  readonly inputs?: PlainTensor[];
  readonly outputs?: PlainTensor[];
  readonly [field: string]: unknown;
}

/** A message as any program reads it, but for the padding, which it is told to skip. */
function decode(type: protobuf.Type, bytes: Uint8Array): PlainMessage {
  const options = { longs: String, enums: String, defaults: true, bytes: Buffer };
  const message = type.toObject(type.decode(bytes), options) as PlainMessage;
  const tensors = type === Request ? message.inputs : message.outputs;
  for (const tensor of (tensors ?? []) as (PlainTensor & { padding?: Buffer })[]) delete tensor.padding;
  return message;
}

let received:
  | { inputs: Tensors; model: string | undefined; parameters: unknown; outputs: unknown; requestId: string }
  | undefined;

describe('compute.proto', () => {
  let pair: Awaited<ReturnType<typeof loopback>>;
  let raw: RawClient;

  beforeAll(async () => {
    pair = await loopback({
      async compute({ inputs, model, parameters, outputs }, { requestId }) {
        received = { inputs, model, parameters, outputs, requestId };
        return { model: 'answering', outputs: inputs, timing: { queueMs: 1.5, computeMs: 2.5, batchSize: 6 } };
      },
    });
    raw = new RawClient(`127.0.0.1:${pair.port}`);
  });
  afterAll(async () => {
    await raw[Symbol.asyncDispose]();
    await pair.close();
  });

  it('says how to write a request, and what an answer says', async () => {
    await fc.assert(
      fc.asyncProperty(tensor, fc.constantFrom('x', '__proto__', 'ü'), async (value, name) => {
        const plain = toPlain(name, value);
        const message = Request.fromObject({ requestId: 'abc', model: 'm', inputs: [plain], outputs: [] });
        const answer = await raw.unary('Compute', Request.encode(message).finish());
        expect(answer).toMatchObject({ code: 'OK' });
        expect(Object.keys(received?.inputs ?? {})).toEqual([name]);
        expect(bits(Object.values(received?.inputs ?? {})[0] as Tensor)).toEqual(bits(value));
        expect(received).toMatchObject({ model: 'm', requestId: 'abc', parameters: {}, outputs: [] });
        expect(decode(Response, answer.bytes ?? new Uint8Array())).toEqual({
          requestId: 'abc',
          model: 'answering',
          outputs: [plain],
          timing: { queueMs: 1.5, computeMs: 2.5, serverMs: expect.any(Number), batchSize: 6 },
        });
      }),
      { numRuns: 150 },
    );
  });

  it('says what our client sends', async () => {
    const sent: PlainMessage[] = [];
    await using foreign = await foreignServer({
      Compute({ request: bytes }: { request: Buffer }, callback: (error: null, answer: Uint8Array) => void) {
        const request = decode(Request, bytes);
        sent.push(request);
        callback(null, Response.encode(Response.fromObject({ outputs: request.inputs })).finish());
      },
    });
    const client = new GRPCComputeClient(foreign.address);
    await fc.assert(
      fc.asyncProperty(tensor, async (value) => {
        sent.length = 0;
        const { outputs, timing } = await client.computeWithTiming(
          { x: value },
          { model: 'm', requestId: 'r', outputs: ['x'] },
        );
        expect(sent).toEqual([
          {
            requestId: 'r',
            model: 'm',
            inputs: [toPlain('x', value)],
            parameters: null,
            outputs: ['x'],
            outputEncoding: expect.any(String),
          },
        ]);
        expect(bits(outputs.x as Tensor)).toEqual(bits(value));
        // An answer without timing is one that took no time, as far as anyone can tell.
        expect(timing).toMatchObject({ serverMs: 0, queueMs: 0, computeMs: 0 });
      }),
      { numRuns: 100 },
    );
    await client.close();
  });

  it('gives parameters as google.protobuf.Struct', async () => {
    const parameters = { fields: { a: { listValue: { values: [{ numberValue: 1 }, { nullValue: 'NULL_VALUE' }] } } } };
    const message = Request.fromObject({ parameters });
    expect(await raw.unary('Compute', Request.encode(message).finish())).toMatchObject({ code: 'OK' });
    expect(received?.parameters).toEqual({ a: [1, null] });
  });

  it('needs no field at all', async () => {
    const answer = await raw.unary('Compute', new Uint8Array());
    expect(answer.code).toBe('OK');
    expect(received).toMatchObject({ inputs: {}, model: undefined, parameters: {}, outputs: [] });
    expect(received?.requestId).toMatch(/^[0-9a-f-]{36}$/);
    expect(decode(Response, answer.bytes ?? new Uint8Array())).toMatchObject({ requestId: received?.requestId });
  });

  it('numbers every dtype, for ever', () => {
    const numbers: Record<(typeof DTYPES)[number], number> = {
      float32: 1,
      float64: 2,
      float16: 3,
      bfloat16: 4,
      int8: 5,
      uint8: 6,
      int16: 7,
      uint16: 8,
      int32: 9,
      uint32: 10,
      int64: 11,
      uint64: 12,
      bool: 13,
      string: 14,
    };
    const expected = Object.entries(numbers).map(([name, number]) => [`DTYPE_${name.toUpperCase()}`, number]);
    expect(root.lookupEnum('splitlearn.comm.v1.DType').values).toEqual(
      Object.fromEntries([['DTYPE_UNSPECIFIED', 0], ...expected]),
    );
  });

  it('lets a foreign client read errors from status and trailers', async () => {
    const bytes = Request.encode(Request.fromObject({ outputs: ['missing'] })).finish();
    expect(await raw.unary('Compute', bytes, new Metadata())).toEqual({
      code: 'INVALID_ARGUMENT',
      details: "there is no output 'missing'; there are none",
    });
  });
});
