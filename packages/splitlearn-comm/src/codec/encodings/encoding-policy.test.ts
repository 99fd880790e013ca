import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CompressionName, Compressors } from './compressors.js';
import { chooseEncoding, EncodingPolicy, MIN_AUTO_BYTES, sampleRatio } from './encoding-policy.js';
import type { TensorEncoding } from './tensor-encoding.js';

const MB = 1_000_000;
const ALL: readonly TensorEncoding[] = ['raw', 'float16', 'bfloat16', 'int8', 'gzip', 'zstd'];
/** gzip takes 1 s for 50 MB, there and back; zstd half of it. */
const speeds = {
  gzip: { compressBytesPerSecond: 100 * MB, decompressBytesPerSecond: 100 * MB },
  zstd: { compressBytesPerSecond: 200 * MB, decompressBytesPerSecond: 200 * MB },
};

function choose(bytesPerSecond: number | undefined, candidates = ALL, ratio = 0.5, tensorBytes = MB): TensorEncoding {
  return chooseEncoding({ bytesPerSecond }, tensorBytes, candidates, () => ratio, speeds);
}

/** Bytes of which no compressor makes anything. */
function noise(length: number): Uint8Array {
  let state = 1;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}

describe('chooseEncoding', () => {
  it.each<[string, TensorEncoding, Parameters<typeof choose>]>([
    ['an unknown link', 'raw', [undefined]],
    ['a slow link', 'zstd', [MB]],
    ['a slow link, without zstd', 'gzip', [MB, ['raw', 'gzip']]],
    ['a slow link, with neither', 'raw', [MB, ['raw', 'float16', 'int8']]],
    // Raw 0.04 s/MB less a tenth; gzip 0.02 + 0.02.
    ['a link where gzip no longer pays', 'raw', [25 * MB, ['gzip']]],
    ['the same link with zstd', 'zstd', [25 * MB]],
    ['a link just below where gzip pays', 'gzip', [19.9 * MB, ['gzip']]],
    ['a link just above', 'raw', [20.1 * MB, ['gzip']]],
    ['a fast link', 'raw', [1250 * MB]],
    ['what does not get smaller', 'raw', [MB, ALL, 0.93]],
    ['a small tensor', 'raw', [MB, ALL, 0.01, MIN_AUTO_BYTES - 1]],
    ['the smallest that is not small', 'zstd', [MB, ALL, 0.01, MIN_AUTO_BYTES]],
  ])('for %s is %s', (_, expected, args) => {
    expect(choose(...args)).toBe(expected);
  });

  it('takes the encoding that is done first, though another one makes less of it', () => {
    const ratios = { gzip: 0.4, zstd: 0.6 };
    const at = (bytesPerSecond: number) =>
      chooseEncoding({ bytesPerSecond }, MB, ALL, (encoding) => ratios[encoding], speeds);
    expect([at(MB), at(28 * MB)]).toEqual(['gzip', 'zstd']);
  });

  it('does not ask for a ratio where no ratio could make compressing pay', () => {
    const asked: CompressionName[] = [];
    const ratioOf = (encoding: CompressionName) => {
      asked.push(encoding);
      return 0;
    };
    chooseEncoding({ bytesPerSecond: 60 * MB }, MB, ALL, ratioOf, speeds);
    expect(asked).toEqual(['zstd']);
    for (const bytesPerSecond of [undefined, 100 * MB]) chooseEncoding({ bytesPerSecond }, MB, ALL, ratioOf, speeds);
    chooseEncoding({ bytesPerSecond: MB }, 100, ALL, ratioOf, speeds);
    expect(asked).toEqual(['zstd']);
  });

  it('loses nothing, and never compresses on a link on which it did not on a slower one', () => {
    const rate = fc.double({ min: 1, max: 1e10, noNaN: true });
    fc.assert(
      fc.property(
        rate,
        rate,
        fc.double({ min: 0, max: 1, noNaN: true }),
        fc.subarray([...ALL]),
        (a, b, ratio, some) => {
          const [slow, fast] = [choose(Math.min(a, b), some, ratio), choose(Math.max(a, b), some, ratio)];
          for (const encoding of [slow, fast]) {
            expect(['raw', 'gzip', 'zstd']).toContain(encoding);
            if (encoding !== 'raw') expect(some).toContain(encoding);
          }
          if (slow === 'raw') expect(fast).toBe('raw');
        },
      ),
    );
  });
});

describe('sampleRatio', () => {
  it('is near 0 for zeros, and 1 for noise', () => {
    expect(sampleRatio(new Uint8Array(1e6), 'gzip')).toBeLessThan(0.02);
    expect(sampleRatio(noise(1e5), 'gzip')).toBe(1);
  });

  it('is not misled by a beginning that is padding', () => {
    const padded = noise(200_000).fill(0, 0, 90_000);
    const ratio = sampleRatio(padded, 'gzip');
    expect(ratio).toBeGreaterThan(0.45);
    expect(ratio).toBeLessThan(0.55);
  });

  it('takes no more than 64 KiB, in two parts that begin at a multiple of 8, and nothing twice', () => {
    const taken: [number, number][] = [];
    const record = (bytes: Uint8Array) => {
      if (bytes.byteLength > 0) taken.push([bytes.byteOffset, bytes.byteLength]);
      return undefined;
    };
    const compressors = { gzip: { compressSync: record } } as unknown as Compressors;
    expect(sampleRatio(new Uint8Array(1_000_012), 'gzip', compressors)).toBe(1);
    expect(taken).toEqual([
      [0, 32768],
      [500_000, 32768],
    ]);
    taken.length = 0;
    sampleRatio(new Uint8Array(40_000), 'gzip', compressors);
    expect(taken).toEqual([
      [0, 32768],
      [32768, 40_000 - 32768],
    ]);
  });

  it.each([0, 1, 64, 65, 32768, 32769, 32768 + 64])('takes %d bytes', (length) => {
    expect(sampleRatio(noise(length), 'gzip')).toBe(1);
  });
});

describe('EncodingPolicy', () => {
  it('goes by the link as it is at each call, and by the tensor', () => {
    const link: { bytesPerSecond: number | undefined } = { bytesPerSecond: undefined };
    const policy = new EncodingPolicy({ candidates: ['raw', 'gzip', 'int8'], link });
    const [zeros, noisy] = [new Uint8Array(1e5), noise(1e5)];
    expect(policy.choose(zeros)).toBe('raw');
    link.bytesPerSecond = MB;
    expect([policy.choose(zeros), policy.choose(noisy)]).toEqual(['gzip', 'raw']);
    link.bytesPerSecond = 1250 * MB;
    expect(policy.choose(zeros)).toBe('raw');
  });
});
