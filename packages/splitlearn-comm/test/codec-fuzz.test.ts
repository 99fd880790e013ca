import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { JsonValue } from '@splitlearn/comm';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { decodeRequest, decodeResponse } from '../src/codec/wire.js';
import { allBits, canonical } from './support/arbitraries.js';
import { plainest, varint } from './support/plain-wire.js';
import { readRequest, readResponse } from './support/protobufjs-codec.js';
import { damage, NoisyWriter, Random } from './support/wire-noise.js';

import v1 = splitlearn.comm.v1;

// Bytes that nobody in their right mind would send, in quantities. Seeded: every run sees the same ones.

const MESSAGES = 100_000;
const BYTES = 10_000_000;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

type Outcome = { readonly value: unknown } | { readonly error: unknown };

function outcomeOf(read: () => unknown): Outcome {
  try {
    return { value: read() };
  } catch (error) {
    return { error };
  }
}

/** A codec of each kind of message, ours and protobufjs's, that says what it has read in a form to compare. */
const KINDS = {
  request: {
    ours: (bytes: Uint8Array) => plainRequest(decodeRequest(bytes)),
    theirs: (bytes: Uint8Array) => plainRequest(readRequest(bytes)),
    code: 'INVALID_ARGUMENT',
  },
  response: {
    ours: (bytes: Uint8Array) => plainResponse(decodeResponse(bytes)),
    theirs: (bytes: Uint8Array) => plainResponse(readResponse(bytes)),
    code: 'INTERNAL',
  },
} as const;

function plainRequest({ request, requestId, outputEncoding }: ReturnType<typeof readRequest>): string {
  const { model, inputs, outputs, parameters } = request;
  return JSON.stringify([
    requestId,
    model,
    outputEncoding,
    outputs,
    canonical(parameters as JsonValue),
    allBits(inputs),
  ]);
}

function plainResponse({ response, timing }: ReturnType<typeof readResponse>): string {
  const { queueMs, computeMs, serverMs, batchSize } = timing;
  const times = [queueMs, computeMs, serverMs, batchSize].map((ms) => (Object.is(ms, -0) ? '-0' : String(ms)));
  return JSON.stringify([response.model, times, allBits(response.outputs)]);
}

const DTYPES = [1, 2, 3, 6, 11, 13, 14] as const;
const ELEMENT_BYTES = [4, 8, 2, 1, 8, 1, 0];

function someTensor(random: Random, name: string): v1.ITensor {
  const index = random.below(DTYPES.length);
  const shape = Array.from({ length: random.below(4) }, () => random.below(4));
  const count = shape.reduce((product, size) => product * size, 1);
  const dtype = DTYPES[index] as number as v1.DType;
  if (dtype === v1.DType.DTYPE_STRING) {
    const strings = Array.from({ length: count }, () => Buffer.from(random.pick(['', 'a', 'text', 'ü'])));
    const lengths = strings.map((string) => Buffer.from(Uint32Array.of(string.byteLength).buffer));
    return {
      name,
      dtype,
      shape,
      data: Buffer.concat(strings.flatMap((string, at) => [lengths[at] as Buffer, string])),
    };
  }
  const data = random.bytes(count * (ELEMENT_BYTES[index] as number));
  return { name, dtype, shape, data: dtype === v1.DType.DTYPE_BOOL ? data.map((byte) => byte & 1) : data };
}

function someTensors(random: Random): v1.ITensor[] {
  const names = ['x', 'input', '__proto__', 'a longer name than the others', 'ü'];
  return names.filter(() => random.chance(0.36)).map((name) => someTensor(random, name));
}

const VALUES = [
  { numberValue: -1.5 },
  { stringValue: 'some text' },
  { listValue: { values: [{ boolValue: true }, { structValue: { fields: { b: { numberValue: 2 } } } }] } },
];

/** A real message, then changed or not, or bytes that are none. */
function someMessage(random: Random, kind: keyof typeof KINDS): Buffer {
  if (random.chance(0.08)) return random.bytes(random.below(150));
  const writer = new NoisyWriter(random, { overlong: random.chance(0.2) });
  const id = random.pick(['', 'id', '123e4567-e89b-12d3-a456-426614174000']);
  const model = random.pick(['', 'm', 'a model with a name']);
  const fields = Object.fromEntries(
    ['a', 'b', '__proto__'].filter(() => random.chance(0.4)).map((key) => [key, random.pick(VALUES)]),
  );
  const message =
    kind === 'request'
      ? writer.request({
          requestId: id,
          model,
          inputs: someTensors(random),
          parameters: random.chance(0.3) ? { fields } : null,
          outputs: ['', 'y', 'an output'].filter(() => random.chance(0.3)),
          outputEncoding: random.below(6) as v1.Encoding,
        })
      : writer.response({
          requestId: id,
          model,
          outputs: someTensors(random),
          timing: random.chance(0.5) ? { queueMs: 1.5, computeMs: -0, serverMs: 1e300, batchSize: 7 } : null,
        });
  return random.chance(0.25) ? message : damage(message, random);
}

function heapBytes(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

describe('decoding', () => {
  it(`${MESSAGES} damaged messages gives what protobufjs gives, or a refusal`, { timeout: 60_000 }, () => {
    const random = new Random(20_261_122);
    const counts = { messages: 0, bytes: 0, accepted: 0, onlyByUs: 0, refused: 0 };
    let warmBytes = 0;
    let sharedBytes = 0;
    for (; counts.messages < MESSAGES; counts.messages++) {
      // What is made once, by compilers and caches, has been made by then.
      if (counts.messages === MESSAGES / 10) warmBytes = heapBytes();
      const kind = random.chance(0.6) ? 'request' : 'response';
      const bytes = someMessage(random, kind);
      counts.bytes += bytes.byteLength;
      // On memory of their own, or among others.
      const own = random.chance(0.5) ? new Uint8Array(bytes) : bytes;
      if (own.buffer.byteLength > own.byteLength) sharedBytes += own.byteLength;
      const ours = outcomeOf(() => KINDS[kind].ours(own));
      const theirs = outcomeOf(() => KINDS[kind].theirs(bytes));
      if ('error' in ours) {
        counts.refused++;
        const { name, code } = ours.error as { name?: string; code?: string };
        const wrong = name !== 'CommError' || code !== KINDS[kind].code;
        if (wrong || ('value' in theirs && !isTooLongVarint(ours.error))) {
          expect.fail(`${kind} ${bytes.toString('hex')}: ${JSON.stringify(theirs)} became ${String(ours.error)}`);
        }
      } else if ('error' in theirs) {
        counts.onlyByUs++;
        // protobufjs is strict where the specification is not: it takes no tag or length of more than five bytes, no long
        // varint among the last bytes of a message, and no part of an embedded message that is not complete by itself.
        const plainly = outcomeOf(() => KINDS[kind].theirs(plainest(bytes, kind)));
        if (!('value' in plainly) || plainly.value !== ours.value) {
          expect.fail(`${kind} ${bytes.toString('hex')}: ${String(theirs.error)} became ${ours.value}`);
        }
      } else {
        counts.accepted++;
        if (ours.value !== theirs.value) {
          expect.fail(`${kind} ${bytes.toString('hex')}: ${theirs.value} became ${ours.value}`);
        }
      }
    }
    expect(heapBytes() - warmBytes).toBeLessThan(4e6);
    expect(counts.bytes).toBeGreaterThanOrEqual(BYTES);
    expect(sharedBytes).toBeGreaterThan(0);
    // Neither outcome is the only one that is tested.
    expect(counts.accepted).toBeGreaterThan(MESSAGES / 5);
    expect(counts.refused).toBeGreaterThan(MESSAGES / 5);
    expect(counts.onlyByUs).toBeLessThan(MESSAGES / 20);
  });

  /** Fields that cost their sender next to nothing: as many of them as a megabyte has. */
  const many = (field: Uint8Array, bytes = 1 << 20) => Buffer.alloc(bytes - (bytes % field.byteLength), field);
  const tensorOf = (fields: Buffer) => Buffer.concat([Buffer.of(0x1a), varint(fields.byteLength), fields]);

  it.each<[string, Buffer, string | undefined]>([
    ['empty parts of parameters', many(Buffer.of(0x22, 0)), undefined],
    ['parts of parameters', many(Buffer.of(0x22, 3, 0x0a, 1, 0x08)), 'ComputeRequest'],
    ['entries of parameters', many(Buffer.of(0x22, 5, 0x0a, 3, 0x0a, 1, 0x61)), undefined],
    ['outputs', many(Buffer.of(0x2a, 0)), undefined],
    ['tensors that are none', many(Buffer.of(0x1a, 0)), 'unknown dtype number 0'],
    ['tensors of one name', many(Buffer.of(0x1a, 5, 0x10, 6, 0x1a, 1, 0)), "two tensors named ''"],
    ['names of a tensor', tensorOf(many(Buffer.of(0x0a, 1, 0x61))), 'unknown dtype number 0'],
    [
      'dimensions, packed',
      tensorOf(Buffer.concat([Buffer.of(0x10, 6, 0x1a), varint(1 << 20), Buffer.alloc(1 << 20, 1)])),
      '1048576 dimensions',
    ],
    [
      'dimensions, one by one',
      tensorOf(Buffer.concat([Buffer.of(0x10, 6), many(Buffer.of(0x18, 1))])),
      '524288 dimensions',
    ],
    [
      'parts of shapes that are empty',
      tensorOf(Buffer.concat([Buffer.of(0x10, 6, 0x2a, 1, 1), many(Buffer.of(0x1a, 0))])),
      undefined,
    ],
    ['unknown fields', many(Buffer.of(0x78, 1)), undefined],
    ['groups in groups', many(Buffer.of(0x0b)), 'nested more than 100 deep'],
    ['groups after groups', many(Buffer.of(0x0b, 0x0c)), undefined],
    ['one long name', Buffer.concat([Buffer.of(0x12), varint(1 << 20), Buffer.alloc(1 << 20, 0x61)]), undefined],
    [
      'one long name that ends wrong',
      Buffer.concat([Buffer.of(0x12), varint((1 << 20) + 1), Buffer.alloc(1 << 20, 0x61), Buffer.of(0xff)]),
      'UTF-8',
    ],
  ])('a megabyte of %s takes time in proportion', (_, bytes, refusal) => {
    const read = () => decodeRequest(bytes);
    if (refusal === undefined) expect(read()).toMatchObject({ outputEncoding: 0 });
    else
      expect(read).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(refusal) }),
      );
  });

  it('what claims gigabytes allocates nothing for them', () => {
    const claims = [0x0a, 0x12, 0x1a, 0x22, 0x2a, 0x7a].flatMap((tag) =>
      [2 ** 31 - 1, 2 ** 32, 2 ** 40, -1].map((length) =>
        Buffer.concat([Buffer.of(tag), varint(length), Buffer.alloc(64)]),
      ),
    );
    const inside = claims.map((claim) => tensorOf(claim));
    const before = process.memoryUsage().arrayBuffers;
    for (const bytes of [...claims, ...inside]) {
      expect(() => decodeRequest(bytes)).toThrow(
        expect.objectContaining({ message: expect.stringContaining('bytes are needed, but 64 are left') }),
      );
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1e6);
  });
});

/** The specification has varints of ten bytes at most; protobufjs passes over longer ones in fields that it skips. */
function isTooLongVarint(error: unknown): boolean {
  return (error as Error).message.includes('a number has more than 10 bytes');
}
