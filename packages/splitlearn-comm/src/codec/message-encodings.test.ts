import { gzipSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { rejection } from '../../test/support/deferred.js';
import { type Tensor, type Tensors, tensor } from '../tensor.js';
import type { TensorEncoding } from './encodings/tensor-encoding.js';
import { decodeUpTo, encodeAhead } from './message-encodings.js';
import { decodeRequest, decodeResponse, encodeRequest, encodeResponse, toBytes } from './wire.js';

import v1 = splitlearn.comm.v1;

const { ENCODING_RAW, ENCODING_FLOAT16, ENCODING_INT8, ENCODING_GZIP } = v1.Encoding;
const MIB = 1024 * 1024;

const thousands = tensor(new Float32Array(1000).fill(0.5));
const strings = tensor(new Array<string>(1000).fill('the same'));

/** Tensors there and back in a message. */
async function roundTrip(tensors: Tensors, encoding: TensorEncoding, maxBytes = MIB): Promise<Tensors> {
  const encode = await encodeAhead(tensors, () => encoding);
  const bytes = toBytes(encodeRequest({ inputs: tensors }, 'id', encode && { encode }));
  const decoded = decodeRequest(bytes, { decode: decodeUpTo(maxBytes) });
  await decoded.ready;
  return decoded.request.inputs;
}

function zeros(bytes: number) {
  return { dtype: 'uint8' as const, shape: [bytes], data: gzipSync(new Uint8Array(bytes)) };
}

describe('encodeAhead', () => {
  it('has nothing to do where all is raw', async () => {
    expect(await encodeAhead({ a: thousands }, () => 'raw')).toBe(undefined);
    expect(await encodeAhead({}, () => 'gzip')).toBe(undefined);
  });

  it('encodes each tensor as is chosen for it', async () => {
    const choice: Record<string, TensorEncoding> = { a: 'float16', b: 'raw', c: 'gzip' };
    const inputs: Tensors = { a: thousands, b: tensor([1, 2]), c: strings };
    const names = new Map(Object.entries(inputs).map(([name, value]) => [value, name]));
    const encode = await encodeAhead(inputs, (value) => choice[names.get(value) as string] as TensorEncoding);
    const encoded = Object.entries(inputs).map(([name, value]) => encode?.(value, name));
    expect(encoded.map((data) => data?.encoding)).toEqual([ENCODING_FLOAT16, ENCODING_RAW, ENCODING_GZIP]);
    expect(encoded.map((data) => data?.data.byteLength)).toEqual([2000, 8, expect.any(Number)]);
    expect(encoded[2]?.data.byteLength).toBeLessThan(1000);
  });

  it.each<[TensorEncoding, Tensor]>([
    ['float16', tensor([1e6])],
    ['int8', tensor([Number.POSITIVE_INFINITY])],
    ['float16', tensor([1, 2], [2], 'int32')],
    ['int8', tensor(['text'])],
    ['gzip', tensor([1, 2, 3])],
  ])('leaves raw what %s is not for, or makes no smaller', async (encoding, value) => {
    const encode = await encodeAhead({ value }, () => encoding);
    expect(encode?.(value, 'value').encoding).toBe(ENCODING_RAW);
    expect(await roundTrip({ value }, encoding)).toEqual({ value });
  });

  it.each<[string, unknown, string]>([
    ['an array', { a: [1, 2] }, "'a'"],
    ['null', { a: null }, "'a'"],
    ['too few elements', { a: { dtype: 'float32', shape: [3], data: new Float32Array(2) } }, "tensor 'a'"],
    ['half a character', { a: tensor(['\ud800']) }, 'lone surrogate'],
    ['no tensors', undefined, 'tensors by name'],
  ])('leaves %s to the message, which says whose fault it is', async (_, tensors, message) => {
    const encode = await encodeAhead(tensors as Tensors, () => 'gzip');
    const options = encode && { encode };
    expect(() => encodeRequest({ inputs: tensors as Tensors }, 'id', options)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
    expect(() => encodeResponse({ outputs: tensors as Tensors }, 'id', 0, options)).toThrow(
      expect.objectContaining({ code: 'INTERNAL', message: expect.stringContaining(message) }),
    );
  });
});

describe('decodeUpTo', () => {
  it('gives back what was encoded', async () => {
    const inputs = { a: thousands, b: strings };
    for (const encoding of ['float16', 'bfloat16', 'gzip'] as const) {
      expect(await roundTrip(inputs, encoding)).toEqual(inputs);
    }
  });

  it('refuses an encoding that it does not know, by the name of the tensor', () => {
    expect(() => decodeUpTo(MIB)(77, zeros(8), 'ids')).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: "tensor 'ids' has the unknown encoding 77" }),
    );
  });

  it('lets all tensors of a message together have so many bytes', async () => {
    const inputs = { a: thousands, b: thousands, c: thousands };
    for (const encoding of ['float16', 'int8', 'gzip'] as const) {
      expect(Object.keys(await roundTrip(inputs, encoding, 12_000))).toEqual(['a', 'b', 'c']);
      expect(await rejection(roundTrip(inputs, encoding, 11_999))).toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
        reason: 'MESSAGE_TOO_LARGE',
        message:
          "tensor 'c' of dtype float32 and shape [1000] has 4000 bytes, more than the 3999 bytes that are allowed",
      });
    }
  });

  it('counts strings as what they turn out to be', async () => {
    const inputs = { a: strings, b: strings };
    expect(Object.keys(await roundTrip(inputs, 'gzip', 24_000))).toEqual(['a', 'b']);
    expect(await rejection(roundTrip(inputs, 'gzip', 23_999))).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringMatching(/^tensor 'b' .* \d+ bytes of gzip that decompress to more, more than the 11999 /),
    });
  });

  it('counts for each message anew', async () => {
    for (let message = 0; message < 3; message++) await roundTrip({ a: thousands }, 'gzip', 4_000);
  });

  it('decompresses in another thread what is large when it is decompressed, however little came', async () => {
    const decode = decodeUpTo(16 * MIB);
    const small = decode(ENCODING_GZIP, zeros(256 * 1024 - 1), 'x');
    expect(small).toBeInstanceOf(Uint8Array);
    const bomb = zeros(4 * MIB);
    expect(bomb.data.byteLength).toBeLessThan(5_000);
    const large = decode(ENCODING_GZIP, bomb, 'x');
    expect(large).toBeInstanceOf(Promise);
    expect((await large).byteLength).toBe(4 * MIB);
  });

  it.each([
    ['less', 999_999],
    ['more', 1_000_001],
  ])('refuses a tensor that says it has %s than it decompresses to', async (_, said) => {
    const bomb = { ...zeros(1_000_000), shape: [said] };
    const error = await rejection((async () => decodeUpTo(16 * MIB)(ENCODING_GZIP, bomb, 'x'))());
    expect(error).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining(
        `needs ${said} bytes, but its ${bomb.data.byteLength} bytes of gzip decompress to`,
      ),
    });
  });

  it('refuses what another thread cannot decompress, and leaves no rejection behind', async () => {
    const broken = { ...zeros(MIB), data: new Uint8Array(100) };
    const inputs = [
      { name: 'a', dtype: v1.DType.DTYPE_UINT8, shape: [MIB], encoding: ENCODING_GZIP, data: broken.data },
      { name: 'b', dtype: v1.DType.DTYPE_UINT8, shape: [32 * MIB], encoding: ENCODING_GZIP, data: broken.data },
    ];
    const first = v1.ComputeRequest.encode({ inputs: inputs.slice(0, 1) }).finish();
    const decoded = decodeRequest(first, { decode: decodeUpTo(16 * MIB) });
    expect(await rejection(decoded.ready as Promise<void>)).toMatchObject({ code: 'INVALID_ARGUMENT' });
    // Here nobody waits for the first, as the second is refused at once. vitest fails on what is left unhandled.
    const both = v1.ComputeRequest.encode({ inputs }).finish();
    expect(() => decodeRequest(both, { decode: decodeUpTo(16 * MIB) })).toThrow(
      expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' }),
    );
    await new Promise((resolve) => setImmediate(resolve));
  });

  it('blames the server for a response that is wrong, now or later', async () => {
    const { data } = zeros(MIB);
    const outputs = [{ name: 'a', dtype: v1.DType.DTYPE_UINT8, shape: [MIB - 1], encoding: ENCODING_GZIP, data }];
    const later = decodeResponse(v1.ComputeResponse.encode({ outputs }).finish(), { decode: decodeUpTo(16 * MIB) });
    expect(await rejection(later.ready as Promise<void>)).toMatchObject({
      code: 'INTERNAL',
      message: expect.stringContaining("the server's answer is malformed: tensor 'a'"),
    });
    const wrong = [{ name: 'a', dtype: v1.DType.DTYPE_UINT8, shape: [8], encoding: ENCODING_INT8, data }];
    expect(() =>
      decodeResponse(v1.ComputeResponse.encode({ outputs: wrong }).finish(), { decode: decodeUpTo(MIB) }),
    ).toThrow(expect.objectContaining({ code: 'INTERNAL' }));
  });
});
