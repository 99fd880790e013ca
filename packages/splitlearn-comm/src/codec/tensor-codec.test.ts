import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bits, NUMERIC_DTYPES, tensor as tensors } from '../../test/support/arbitraries.js';
import { bytesPerElement, type DType, type Tensor, tensor } from '../tensor.js';
import { type EncodedTensor, TensorCodec } from './tensor-codec.js';

const codec = new TensorCodec();

/** Bytes at a given distance from the start of their buffer. */
function bytesAt(offset: number, bytes: readonly number[]): Uint8Array {
  return Uint8Array.from([...new Array<number>(offset).fill(0xee), ...bytes]).subarray(offset);
}

function refusal(encoded: EncodedTensor, name?: string): unknown {
  try {
    codec.decode(encoded, name);
  } catch (error) {
    return error;
  }
  return undefined;
}

describe('TensorCodec', () => {
  it('gives back the very bits it was given, for every dtype and shape', () => {
    fc.assert(
      fc.property(tensors, (original) => {
        const encoded = codec.encode(original);
        expect(encoded.data.byteLength).toBe(codec.byteLength(original));
        expect(bits(codec.decode(encoded))).toEqual(bits(original));
      }),
      { numRuns: 500 },
    );
  });

  it('keeps signalling NaNs, NaN payloads, -0, infinities and denormals', () => {
    const words = Uint32Array.of(0x7fa00001, 0xffc12345, 0x80000000, 0x7f800000, 0xff800000, 0x00000001, 0x807fffff);
    const { data } = codec.decode(codec.encode(tensor(new Float32Array(words.buffer))));
    const { buffer, byteOffset, length } = data as Float32Array;
    expect(new Uint32Array(buffer, byteOffset, length)).toEqual(words);
  });

  it('is little-endian and row-major', () => {
    expect(
      codec.encode(
        tensor(
          [
            [1, 2],
            [3, 258],
          ],
          undefined,
          'int16',
        ),
      ).data,
    ).toEqual(Uint8Array.of(1, 0, 2, 0, 3, 0, 2, 1));
  });

  it('writes a string as its length in bytes and its UTF-8', () => {
    expect([...codec.encode(tensor(['a', '', 'é'])).data]).toEqual([
      1, 0, 0, 0, 97, 0, 0, 0, 0, 2, 0, 0, 0, 0xc3, 0xa9,
    ]);
  });

  it('does not copy numbers to encode them', () => {
    const data = new Float32Array([0, 1, 2, 3]).subarray(1, 3);
    const encoded = codec.encode(tensor(data)).data;
    expect(encoded.buffer).toBe(data.buffer);
    expect([encoded.byteOffset, encoded.byteLength]).toEqual([4, 8]);
  });

  it.each(NUMERIC_DTYPES)('decodes %s to a view where the bytes are aligned, else to one copy', (dtype) => {
    const size = bytesPerElement(dtype) ?? 0;
    for (let offset = 0; offset < 8; offset++) {
      const data = bytesAt(offset, new Array<number>(2 * size).fill(1));
      const decoded = codec.decode({ dtype, shape: [2], data });
      const aligned = offset % size === 0;
      expect((decoded as Tensor<'uint8'>).data.buffer === data.buffer).toBe(aligned);
      expect(bits(decoded).elements).toBe(Buffer.from(data).toString('hex'));
    }
  });

  it('makes a plain typed array of a Buffer, because a Buffer is another type with other methods', () => {
    const { data } = codec.decode({ dtype: 'uint8', shape: [3], data: Buffer.from([1, 2, 3]) });
    expect(data.constructor).toBe(Uint8Array);
  });

  describe('refuses', () => {
    it.each<[string, EncodedTensor, string]>([
      [
        'too few bytes',
        { dtype: 'float32', shape: [2, 3], data: new Uint8Array(23) },
        "tensor 'x' of dtype float32 and shape [2,3] needs 24 bytes, but has 23",
      ],
      [
        'too many bytes',
        { dtype: 'int64', shape: [], data: new Uint8Array(9) },
        "tensor 'x' of dtype int64 and shape [] needs 8 bytes, but has 9",
      ],
      [
        'a shape far beyond the bytes',
        { dtype: 'uint8', shape: [2 ** 40], data: new Uint8Array(3) },
        "tensor 'x' of dtype uint8 and shape [1099511627776] needs 1099511627776 bytes, but has 3",
      ],
      [
        'a negative dimension',
        { dtype: 'uint8', shape: [-1, -1], data: new Uint8Array(1) },
        "tensor 'x' has shape [-1,-1]: every dimension must be an integer from 0 to 2^53 - 1",
      ],
      [
        'a size that overflows, whatever comes after',
        { dtype: 'uint8', shape: [2 ** 40, 2 ** 40, 0], data: new Uint8Array() },
        "tensor 'x' has shape [1099511627776,1099511627776,0]: its size overflows",
      ],
      [
        'a bool that is neither 0 nor 1',
        { dtype: 'bool', shape: [3], data: Uint8Array.of(0, 1, 7) },
        "tensor 'x' of dtype bool has the byte 7 at index 2",
      ],
      [
        'strings without room for their lengths',
        { dtype: 'string', shape: [3], data: new Uint8Array(11) },
        "tensor 'x' of dtype string and shape [3] needs at least 12 bytes, but has 11",
      ],
      [
        'a string that is longer than what is left',
        { dtype: 'string', shape: [2], data: Uint8Array.of(1, 0, 0, 0, 97, 5, 0, 0, 0, 98) },
        "tensor 'x' of dtype string: the string at index 1 needs 9 bytes, but 5 are left",
      ],
      [
        'a string length of almost 4 GiB',
        { dtype: 'string', shape: [1], data: Uint8Array.of(255, 255, 255, 255) },
        "tensor 'x' of dtype string: the string at index 0 needs 4294967299 bytes, but 4 are left",
      ],
      [
        'a string that eats the next one’s length',
        { dtype: 'string', shape: [2], data: Uint8Array.of(3, 0, 0, 0, 97, 98, 99, 0) },
        "tensor 'x' of dtype string: the string at index 1 needs 4 bytes, but 1 are left",
      ],
      [
        'bytes after the last string',
        { dtype: 'string', shape: [1], data: Uint8Array.of(0, 0, 0, 0, 9) },
        "tensor 'x' of dtype string needs 4 bytes, but has 5",
      ],
      [
        'bytes that are no UTF-8',
        { dtype: 'string', shape: [1], data: Uint8Array.of(2, 0, 0, 0, 0xc3, 0x28) },
        "tensor 'x' of dtype string: the string at index 0 is not UTF-8",
      ],
      [
        'a lone surrogate, which UTF-8 cannot say',
        { dtype: 'string', shape: [1], data: Uint8Array.of(3, 0, 0, 0, 0xed, 0xa0, 0x80) },
        "tensor 'x' of dtype string: the string at index 0 is not UTF-8",
      ],
    ])('%s', (_, encoded, message) => {
      expect(refusal(encoded, 'x')).toMatchObject({ code: 'INVALID_ARGUMENT', message });
    });

    it('a dtype it does not know', () => {
      const encoded = { dtype: 'complex64' as DType, shape: [1], data: new Uint8Array(8) };
      expect(refusal(encoded, 'x')).toMatchObject({ message: 'tensor \'x\' has the unknown dtype "complex64"' });
    });

    it('to encode a lone surrogate, and says where it is', () => {
      expect(() => codec.encode(tensor(['fine', 'a\ud800']), 'x')).toThrow(
        "tensor 'x' has a lone surrogate in the string at index 1",
      );
    });

    it('to encode what is no tensor', () => {
      const wrong = { dtype: 'float32', shape: [3], data: new Float32Array(2) } as const;
      expect(() => codec.encode(wrong, 'x')).toThrow("tensor 'x' of shape [3] needs 3 elements, but its data has 2");
    });
  });

  it('allocates nothing for a shape that its bytes do not have', () => {
    const before = process.memoryUsage().arrayBuffers;
    for (const dtype of [...NUMERIC_DTYPES, 'string'] as const) {
      for (let times = 0; times < 20; times++) {
        expect(refusal({ dtype, shape: [2 ** 26], data: new Uint8Array(16) })).toMatchObject({
          code: 'INVALID_ARGUMENT',
        });
      }
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(2 ** 26);
  });

  it('either decodes any bytes to a tensor that encodes to them again, or refuses them as a caller’s mistake', () => {
    const anything = fc.record({
      dtype: fc.constantFrom<DType>('float32', 'bool', 'int64', 'float16', 'string'),
      shape: fc.array(fc.oneof(fc.nat(4), fc.integer(), fc.double()), { maxLength: 3 }),
      data: fc.uint8Array({ maxLength: 24 }),
    });
    fc.assert(
      fc.property(anything, (encoded) => {
        const error = refusal(encoded);
        if (error) expect(error).toMatchObject({ name: 'CommError', code: 'INVALID_ARGUMENT' });
        else expect(Buffer.from(codec.encode(codec.decode(encoded)).data)).toEqual(Buffer.from(encoded.data));
      }),
      { numRuns: 2000 },
    );
  });
});
