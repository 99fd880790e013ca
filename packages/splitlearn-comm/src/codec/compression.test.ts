import * as nodeZlib from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bits, tensor as tensors } from '../../test/support/arbitraries.js';
import { type DType, type Tensor, tensor } from '../tensor.js';
import {
  CompressedTensorCodec,
  decodeFrom,
  decodeFromAsync,
  encodeAs,
  encodeAsAsync,
  OFF_THREAD_BYTES,
  supportedEncodings,
  type TensorEncoding,
} from './compression.js';
import { type Compressors, compressorsOf, type ZlibModule } from './encodings/compressors.js';
import { type EncodedTensor, TensorCodec } from './tensor-codec.js';

const zlib = nodeZlib as ZlibModule;
const MAX_BYTES = 2 ** 20;
const LOSSLESS = supportedEncodings().filter((encoding) => ['raw', 'gzip', 'zstd'].includes(encoding));
const COMPRESSIONS = LOSSLESS.filter((encoding) => encoding !== 'raw');
const LOSSY = ['float16', 'bfloat16', 'int8'] as const;

/** What both forms of decoding throw, which must be the same; fails when they throw nothing. */
async function refusal(encoding: TensorEncoding, encoded: EncodedTensor, maxBytes = MAX_BYTES): Promise<unknown> {
  const errors: unknown[] = [];
  try {
    decodeFrom(encoding, encoded, maxBytes, 'x');
  } catch (error) {
    errors.push(error);
  }
  await decodeFromAsync(encoding, encoded, maxBytes, 'x').catch((error) => errors.push(error));
  expect(errors).toHaveLength(2);
  expect(String(errors[0])).toBe(String(errors[1]));
  return errors[0];
}

/** Compressors that only count what is asked of them. */
function counting() {
  const calls: string[] = [];
  const call = (name: string) => () => {
    calls.push(name);
    return new Uint8Array();
  };
  const gzip = Object.fromEntries(
    ['compress', 'compressSync', 'decompress', 'decompressSync'].map((name) => [name, call(name)]),
  );
  return { calls, compressors: { gzip } as unknown as Compressors };
}

describe('supportedEncodings', () => {
  const withoutZstd = ['raw', 'float16', 'bfloat16', 'int8', 'gzip'];

  it('has zstd where Node.js has it, and only there', () => {
    const { gzip, gzipSync, gunzip, gunzipSync } = zlib;
    expect(supportedEncodings(compressorsOf({ gzip, gzipSync, gunzip, gunzipSync }))).toEqual(withoutZstd);
    const zstd = {
      zstdCompress: gzip,
      zstdCompressSync: gzipSync,
      zstdDecompress: gunzip,
      zstdDecompressSync: gunzipSync,
    };
    expect(supportedEncodings(compressorsOf({ gzip, gzipSync, gunzip, gunzipSync, ...zstd }))).toEqual([
      ...withoutZstd,
      'zstd',
    ]);
    expect(supportedEncodings().includes('zstd')).toBe('zstdCompressSync' in nodeZlib);
  });
});

describe.each(LOSSLESS)('CompressedTensorCodec of %s', (encoding) => {
  const codec = new CompressedTensorCodec({ encoding });

  it('gives back the very bits it was given, for every dtype and shape', () => {
    fc.assert(
      fc.property(tensors, (original) => {
        expect(bits(codec.decode(codec.encode(original)))).toEqual(bits(original));
      }),
    );
  });

  it.each<[string, Tensor]>([
    ['zeros', tensor(new Float32Array(5000))],
    [
      'token ids',
      tensor(
        BigInt64Array.from({ length: 4000 }, (_, index) => BigInt((index * 7919) % 3000)),
        [2, 2000],
      ),
    ],
    ['strings', tensor(Array.from({ length: 500 }, (_, index) => `text ${index % 7}`) as [string])],
    ['bools', tensor(new Uint8Array(5000).fill(1), [5000], 'bool')],
    ['megabytes', tensor(Float64Array.from({ length: 150_000 }, (_, index) => index % 100))],
  ])('gives %s back', async (_, original) => {
    const encoded = codec.encode(original);
    expect(encoded).toMatchObject({ encoding, dtype: original.dtype, shape: original.shape });
    if (encoding !== 'raw') expect(encoded.data.byteLength).toBeLessThan(codec.byteLength(original));
    expect(bits(codec.decode(encoded))).toEqual(bits(original));
    // The bytes may differ from those of encodeAs: Zstandard is given them in another way.
    const written = await encodeAsAsync(encoding, original);
    expect(written.encoding).toBe(encoding);
    const data = await decodeFromAsync(encoding, { ...original, data: written.data }, 2 ** 24);
    expect(Buffer.compare(data, new TensorCodec().encode(original).data)).toBe(0);
  });
});

describe.each(LOSSY)('CompressedTensorCodec of %s', (encoding) => {
  const codec = new CompressedTensorCodec({ encoding });

  it('gives float32s back, near what they were', () => {
    const original = tensor(
      Float32Array.from({ length: 600 }, (_, index) => Math.sin(index)),
      [2, 300],
    );
    const encoded = codec.encode(original);
    expect(encoded).toMatchObject({ encoding, dtype: 'float32', shape: [2, 300] });
    expect(encoded.data.byteLength).toBe(encoding === 'int8' ? 600 + 3 * 4 : 1200);
    const decoded = codec.decode(encoded) as Tensor<'float32'>;
    expect(decoded).toMatchObject({ dtype: 'float32', shape: [2, 300] });
    expect(Math.max(...decoded.data.map((value, index) => Math.abs(value - Math.sin(index))))).toBeLessThan(0.004);
    expect(bits(decoded)).not.toEqual(bits(original));
  });

  it('writes anything but float32 raw, and reads it to the bit', () => {
    const others = tensors.filter(({ dtype }) => dtype !== 'float32');
    fc.assert(
      fc.property(others, (original) => {
        const encoded = codec.encode(original);
        expect(encoded.encoding).toBe('raw');
        expect(bits(codec.decode(encoded))).toEqual(bits(original));
      }),
    );
  });

  it('writes raw what it cannot hold', () => {
    const [value] = { float16: [65520], bfloat16: [3.4e38], int8: [Number.NaN] }[encoding] as [number];
    const data = new Float32Array(300).fill(value, 299);
    expect(encodeAs(encoding, tensor(data))).toEqual({ encoding: 'raw', data: new Uint8Array(data.buffer) });
  });

  it('refuses other dtypes, and more or less data than the shape needs', async () => {
    const data = new Uint8Array(2);
    expect(await refusal(encoding, { dtype: 'float64', shape: [1], data })).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: `tensor 'x' of dtype float64 and shape [1] cannot have the encoding ${encoding}, which is for float32`,
    });
    const needed = encoding === 'int8' ? 300 + 8 : 600;
    for (const bytes of [needed - 1, needed + 1]) {
      expect(await refusal(encoding, { dtype: 'float32', shape: [300], data: new Uint8Array(bytes) })).toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: `tensor 'x' of dtype float32 and shape [300] needs ${needed} bytes as ${encoding}, but has ${bytes}`,
      });
    }
  });
});

describe('encodeAs', () => {
  it('writes raw what gets no smaller, as a view on the tensor', () => {
    const one = tensor(Float32Array.of(1));
    // Hashes of a kind: there is nothing to be found in them.
    const noise = tensor(
      Uint32Array.from({ length: 2000 }, (_, index) => Math.imul(index + 1, 2654435761) ^ (index * index * 40503)),
    );
    const empty = tensor(new Float32Array(0));
    for (const encoding of ['int8', ...COMPRESSIONS] as const) {
      for (const original of [one, empty, ...(encoding === 'int8' ? [] : [noise])]) {
        const encoded = encodeAs(encoding, original);
        expect(encoded.encoding).toBe('raw');
        expect(encoded.data.buffer).toBe((original as Tensor<'uint8'>).data.buffer);
      }
    }
  });

  it('does not compress what fits into a packet', () => {
    expect(encodeAs('gzip', tensor(new Uint8Array(1023))).encoding).toBe('raw');
    expect(encodeAs('gzip', tensor(new Uint8Array(1024))).encoding).toBe('gzip');
  });

  it('names the tensor and the encoding that is none, or not this runtime’s', async () => {
    const old = compressorsOf({ ...zlib, zstdCompressSync: undefined } as unknown as ZlibModule);
    const unknown = 'lz4' as TensorEncoding;
    const given = tensor([1]);
    expect(() => encodeAs(unknown, given, 'x')).toThrow(
      /tensor 'x' has the unknown encoding "lz4"; known are raw, .*zstd/,
    );
    expect(() => new CompressedTensorCodec({ encoding: unknown })).toThrow('unknown encoding "lz4"');
    const lacking = {
      code: 'UNIMPLEMENTED',
      message: expect.stringMatching(/^tensor 'x' has the encoding zstd, .* 22.15/),
    };
    const encoded = { dtype: 'uint8', shape: [1], data: Uint8Array.of(1) } as const;
    await expect(encodeAsAsync('zstd', given, 'x', old)).rejects.toMatchObject(lacking);
    await expect(decodeFromAsync('zstd', encoded, 9, 'x', old)).rejects.toMatchObject(lacking);
    expect(await refusal(unknown, encoded)).toMatchObject({ code: 'INVALID_ARGUMENT' });
  });

  it('refuses what is no tensor', () => {
    const wrong = { dtype: 'float32', shape: [3], data: new Float32Array(2) } as const;
    expect(() => new CompressedTensorCodec({ encoding: 'int8' }).encode(wrong, 'x')).toThrow("tensor 'x' of shape [3]");
    expect(() => encodeAs('raw', undefined as unknown as Tensor, 'x')).toThrow("'x' is no tensor");
  });

  it('leaves large tensors to threads, and only those', async () => {
    const { calls, compressors } = counting();
    for (const length of [OFF_THREAD_BYTES - 1, OFF_THREAD_BYTES]) {
      const given = tensor(new Uint8Array(length));
      await encodeAsAsync('gzip', given, 'x', compressors);
      const encoded = { dtype: 'uint8', shape: [length], data: new Uint8Array() } as const;
      await expect(decodeFromAsync('gzip', encoded, MAX_BYTES, 'x', compressors)).rejects.toThrow('decompress to 0');
    }
    expect(calls).toEqual(['compressSync', 'decompressSync', 'compress', 'decompress']);
  });
});

describe('decodeFrom', () => {
  it('gives memory that nobody else holds, as it may move to another thread', () => {
    for (const encoding of [...LOSSY, ...COMPRESSIONS]) {
      for (const length of [300, 5000]) {
        const original = tensor(Float32Array.from({ length }, (_, index) => index % 2));
        const encoded = encodeAs(encoding, original);
        expect(encoded.encoding).toBe(encoding);
        const decoded = decodeFrom(encoding, { ...original, data: encoded.data }, MAX_BYTES);
        expect(decoded.constructor).toBe(Uint8Array);
        expect(decoded.byteOffset).toBe(0);
        expect(decoded.buffer.byteLength).toBeLessThanOrEqual(decoded.byteLength + 64);
      }
    }
  });

  it.each(supportedEncodings())('checks the size against the limit before it does anything (%s)', async (encoding) => {
    for (const [dtype, shape, bytes] of [
      ['float32', [2 ** 18 + 1], 2 ** 20 + 4],
      ['float32', [2 ** 40], 2 ** 42],
      ['string', [2 ** 19], 2 ** 21],
    ] as const) {
      const least = dtype === 'string' ? 'at least ' : '';
      expect(await refusal(encoding, { dtype, shape, data: new Uint8Array(3) })).toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
        reason: 'MESSAGE_TOO_LARGE',
        message:
          `tensor 'x' of dtype ${dtype} and shape [${shape}] has ${least}${bytes} bytes, ` +
          'more than the 1048576 bytes that are allowed',
      });
    }
    const { calls, compressors } = counting();
    const encoded: EncodedTensor = { dtype: 'uint8', shape: [11], data: new Uint8Array(11) };
    expect(() => decodeFrom('gzip', encoded, 10, 'x', compressors)).toThrow('11 bytes, more than the 10');
    expect(calls).toEqual([]);
    expect(await refusal(encoding, { ...encoded, shape: [2 ** 40, 2 ** 40] })).toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    expect(await refusal(encoding, { ...encoded, dtype: 'complex64' as DType })).toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
  });

  it('takes a tensor that is exactly as large as is allowed', () => {
    for (const encoding of supportedEncodings()) {
      const original = tensor(new Float32Array(2 ** 18).fill(0.5));
      const encoded = encodeAs(encoding, original);
      expect(encoded.encoding).toBe(encoding);
      expect(decodeFrom(encoding, { ...original, data: encoded.data }, MAX_BYTES).byteLength).toBe(MAX_BYTES);
    }
  });

  it('holds raw strings to the limit', async () => {
    expect(await refusal('raw', { dtype: 'string', shape: [1], data: new Uint8Array(11) }, 10)).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: "tensor 'x' of dtype string and shape [1] has 11 bytes, more than the 10 bytes that are allowed",
    });
  });

  it('refuses int8 blocks with an impossible scale', async () => {
    const data = Uint8Array.of(0, 0, 0x80, 0x7f, 1);
    expect(await refusal('int8', { dtype: 'float32', shape: [1], data })).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message:
        "tensor 'x' of dtype float32 and shape [1] has a scale that is negative or not finite, in its int8 block 0",
    });
  });

  describe.each(COMPRESSIONS)('of %s', (encoding) => {
    /** Forty megabytes of nothing, in next to no bytes. */
    const bomb = encodeAs(encoding, tensor(new Uint8Array(40e6))).data;

    it('stops a bomb at the size that its tensor has', async () => {
      expect(bomb.byteLength).toBeLessThan(200_000);
      // The larger one decompresses in a thread.
      for (const length of [1000, 300_000]) {
        const before = process.memoryUsage().arrayBuffers;
        expect(await refusal(encoding, { dtype: 'uint8', shape: [length], data: bomb })).toMatchObject({
          code: 'INVALID_ARGUMENT',
          message:
            `tensor 'x' of dtype uint8 and shape [${length}] needs ${length} bytes, ` +
            `but its ${bomb.byteLength} bytes of ${encoding} decompress to more`,
        });
        expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10e6);
      }
    });

    it('stops a bomb of strings at what is allowed', async () => {
      const before = process.memoryUsage().arrayBuffers;
      expect(await refusal(encoding, { dtype: 'string', shape: [1], data: bomb }, 300_000)).toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
        reason: 'MESSAGE_TOO_LARGE',
        message:
          `tensor 'x' of dtype string and shape [1] has ${bomb.byteLength} bytes of ${encoding} that decompress to more, ` +
          'more than the 300000 bytes that are allowed',
      });
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10e6);
    });

    it('refuses one byte more or less than the shape needs', async () => {
      const { data } = encodeAs(encoding, tensor(new Uint8Array(300_000)));
      const needs = (length: number) =>
        `tensor 'x' of dtype uint8 and shape [${length}] needs ${length} bytes, but its`;
      for (const [length, found] of [
        [299_999, 'decompress to more'],
        [300_001, 'decompress to 300000'],
        [0, 'decompress to'],
      ] as const) {
        const error = await refusal(encoding, { dtype: 'uint8', shape: [length], data });
        expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
        expect(String(error)).toContain(`${needs(length)} ${data.byteLength} bytes of ${encoding} ${found}`);
      }
    });

    it('refuses bytes that are no such format, cut off, or nothing', async () => {
      const { data } = encodeAs(encoding, tensor(Uint32Array.from({ length: 1e5 }, (_, index) => index)));
      for (const wrong of [data.subarray(0, -5), data.subarray(4), new Uint8Array()]) {
        const error = await refusal(encoding, { dtype: 'uint32', shape: [1e5], data: wrong });
        expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
        expect(String(error)).toMatch(`has ${wrong.byteLength} bytes that are no ${encoding}: `);
      }
    });
  });

  it('reads gzip of any level, and of a Buffer at any offset', () => {
    const original = tensor(Float32Array.from({ length: 1000 }, (_, index) => index % 9));
    const data = nodeZlib.gzipSync(new Uint8Array(original.data.buffer), { level: 9 });
    const shifted = Buffer.concat([Buffer.of(1), data]).subarray(1);
    expect(decodeFrom('gzip', { ...original, data: shifted }, MAX_BYTES)).toEqual(new Uint8Array(original.data.buffer));
  });

  it('either decodes any bytes to as many as the shape needs, or refuses them as a caller’s mistake', () => {
    const seeds = supportedEncodings().map(
      (encoding) => encodeAs(encoding, tensor(new Float32Array(300).fill(2))).data,
    );
    const anything = fc.record({
      encoding: fc.constantFrom(...supportedEncodings()),
      dtype: fc.constantFrom<DType>('float32', 'bool', 'int64', 'string'),
      shape: fc.array(fc.oneof(fc.nat(4), fc.constant(300), fc.integer(), fc.double()), { maxLength: 3 }),
      data: fc.oneof(
        fc.uint8Array({ maxLength: 24 }),
        fc.tuple(fc.constantFrom(...seeds), fc.nat(2000), fc.nat(255)).map(([seed, at, byte]) => {
          const changed = new Uint8Array(seed);
          changed[at] = byte;
          return changed;
        }),
      ),
    });
    fc.assert(
      fc.property(anything, ({ encoding, ...encoded }) => {
        try {
          const { byteLength } = decodeFrom(encoding, encoded, 5000);
          if (encoding === 'raw' || encoded.dtype === 'string') return;
          const size = { float32: 4, bool: 1, int64: 8 }[encoded.dtype as 'bool'];
          expect(byteLength).toBe(encoded.shape.reduce((product, length) => product * length, size));
        } catch (error) {
          expect(error).toMatchObject({ name: 'CommError' });
          expect(['INVALID_ARGUMENT', 'RESOURCE_EXHAUSTED']).toContain((error as { code: string }).code);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe('CompressedTensorCodec', () => {
  it('reads what another one wrote, and takes a tensor without an encoding for a raw one', () => {
    const original = tensor(new Float32Array(1000).fill(1));
    const raw = new CompressedTensorCodec({ encoding: 'raw' });
    expect(bits(raw.decode(new CompressedTensorCodec({ encoding: 'gzip' }).encode(original)))).toEqual(bits(original));
    const { encoding, ...plain } = raw.encode(original);
    expect(encoding).toBe('raw');
    expect(bits(raw.decode(plain))).toEqual(bits(original));
  });

  it('checks what it has read', () => {
    const codec = new CompressedTensorCodec({ encoding: 'gzip' });
    const encoded = codec.encode(tensor(new Uint8Array(2000).fill(7)));
    expect(() => codec.decode({ ...encoded, dtype: 'bool' }, 'x')).toThrow("tensor 'x' of dtype bool has the byte 7");
    expect(() => codec.decode({ dtype: 'uint8', shape: [3], data: new Uint8Array(2) }, 'x')).toThrow('needs 3 bytes');
  });

  it('has a limit, of 64 MiB by default', () => {
    const encoded = { dtype: 'uint8', encoding: 'gzip', shape: [2 ** 26 + 1], data: new Uint8Array(9) } as const;
    expect(() => new CompressedTensorCodec({ encoding: 'gzip' }).decode(encoded)).toThrow('the 67108864 bytes');
    const small = new CompressedTensorCodec({ encoding: 'raw', maxBytes: 10 });
    expect(() => small.decode({ ...encoded, shape: [11] })).toThrow('the 10 bytes');
    expect(() => new CompressedTensorCodec({ encoding: 'raw', maxBytes: -1 })).toThrow('maxBytes must be');
  });
});
