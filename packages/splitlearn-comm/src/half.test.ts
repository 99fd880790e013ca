import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16, roundToOdd } from './half.js';

const allBits = Uint16Array.from({ length: 0x10000 }, (_, bits) => bits);
const scratch = new DataView(new ArrayBuffer(8));

function float32FromBits(bits: number): number {
  scratch.setUint32(0, bits);
  return scratch.getFloat32(0);
}

/** The float32 that is `steps` away from a positive one. */
function nextFloat32(value: number, steps: number): number {
  scratch.setFloat32(0, value);
  return float32FromBits(scratch.getUint32(0) + steps);
}

/** The double that is `steps` away from a positive one. */
function nextFloat64(value: number, steps: number): number {
  scratch.setFloat64(0, value);
  scratch.setBigUint64(0, scratch.getBigUint64(0) + BigInt(steps));
  return scratch.getFloat64(0);
}

/**
 * What a 16-bit float means and how numbers round to one, told without its fields: the bits count the values upwards
 * from 0, in steps that begin with the smallest value and double with each binade but the first.
 */
function oracle(binade: number, smallest: number, infinity: number) {
  const values = [0];
  for (let bits = 0, step = smallest; bits < infinity; bits++) {
    if (bits >= 2 * binade && bits % binade === 0) step *= 2;
    values.push((values[bits] as number) + step);
  }
  const isNaNBits = (bits: number) => (bits & 0x7fff) > infinity;
  const widen = (bits: number) => {
    const magnitude = bits & 0x7fff;
    if (isNaNBits(bits)) return Number.NaN;
    const value = magnitude === infinity ? Number.POSITIVE_INFINITY : (values[magnitude] as number);
    return bits & 0x8000 ? -value : value;
  };
  /** Exact in doubles: a value is compared with the middle of its neighbours, which always is a double. */
  const narrow = (value: number) => {
    const sign = Object.is(value, -0) || value < 0 ? 0x8000 : 0;
    const magnitude = Math.abs(value);
    let low = 0;
    for (let high = infinity; low < high; ) {
      const middle = (low + high + 1) >> 1;
      if ((values[middle] as number) <= magnitude) low = middle;
      else high = middle - 1;
    }
    if (low === infinity) return sign | infinity;
    const tie = ((values[low] as number) + (values[low + 1] as number)) / 2;
    const up = magnitude > tie || (magnitude === tie && low % 2 === 1);
    return sign | (up ? low + 1 : low);
  };
  return { values, infinity, isNaNBits, widen, narrow };
}

const formats = [
  {
    name: 'float16',
    widen: float16ToFloat32,
    narrow: float32ToFloat16,
    oracle: oracle(1024, 2 ** -24, 0x7c00),
    numbers: [0, 1, -1, 2, 0.5, 65504],
    bits: [0, 0x3c00, 0xbc00, 0x4000, 0x3800, 0x7bff],
  },
  {
    name: 'bfloat16',
    widen: bfloat16ToFloat32,
    narrow: float32ToBfloat16,
    oracle: oracle(128, 2 ** -133, 0x7f80),
    numbers: [0, 1, -1, 2, 0.5, 3.140625],
    bits: [0, 0x3f80, 0xbf80, 0x4000, 0x3f00, 0x4049],
  },
];

describe.each(formats)('$name', ({ widen, narrow, oracle, numbers, bits }) => {
  it('has the bits that are known of some numbers', () => {
    expect([...narrow(Float32Array.from(numbers))]).toEqual(bits);
    expect([...widen(Uint16Array.from(bits))]).toEqual(numbers);
  });

  it('widens each of the 65536 bit patterns to the value it means', () => {
    const wide = widen(allBits);
    expect(wide).toBeInstanceOf(Float32Array);
    expect([...allBits].filter((bits) => !Object.is(wide[bits], oracle.widen(bits)))).toEqual([]);
  });

  it('gives every bit pattern back when it is widened and narrowed, but for the payload of a NaN', () => {
    const back = narrow(widen(allBits));
    expect(back).toBeInstanceOf(Uint16Array);
    const wrong = [...allBits].filter((bits) =>
      oracle.isNaNBits(bits) ? !oracle.isNaNBits(back[bits] as number) : back[bits] !== bits,
    );
    expect(wrong).toEqual([]);
  });

  it('rounds to nearest, ties to even, at and beside the middle of any two neighbours, on both sides of zero', () => {
    const { values } = oracle;
    const middles = values.slice(1).map((value, bits) => (value + (values[bits] as number)) / 2);
    const near = middles.flatMap((middle) => [-1, 0, 1].map((steps) => nextFloat32(middle, steps)));
    const signed = Float32Array.from([...near, ...near.map((value) => -value)]);
    const narrowed = narrow(signed);
    expect([...signed].filter((value, index) => narrowed[index] !== oracle.narrow(value))).toEqual([]);
  });

  it('rounds any float32 to the nearest value', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffffffff }).map(float32FromBits), (value) => {
        const [bits] = narrow(Float32Array.of(value)) as unknown as [number];
        if (Number.isNaN(value)) return oracle.isNaNBits(bits);
        return bits === oracle.narrow(value);
      }),
      { numRuns: 5000 },
    );
  });

  it('keeps a NaN a NaN wherever its payload is', () => {
    const words = Uint32Array.from({ length: 23 }, (_, bit) => 0x7f800000 | (1 << bit));
    const negative = words.map((word) => word | 0x80000000);
    const nans = new Float32Array(Uint32Array.from([...words, ...negative]).buffer);
    expect([...narrow(nans)].filter((bits) => !oracle.isNaNBits(bits))).toEqual([]);
  });

  it('keeps the sign of zeros and infinities and flushes what is too small with its sign', () => {
    const values = Float32Array.of(0, -0, Infinity, -Infinity, 2 ** -149, -(2 ** -149));
    expect([...narrow(values)]).toEqual([0, 0x8000, oracle.infinity, oracle.infinity | 0x8000, 0, 0x8000]);
  });

  it('reads views of larger buffers where they are, and leaves its input alone', () => {
    const floats = Float32Array.of(9, 9, 1, 2, 9);
    const halves = narrow(floats.subarray(2, 4));
    expect([...halves]).toEqual([oracle.narrow(1), oracle.narrow(2)]);
    expect([...floats]).toEqual([9, 9, 1, 2, 9]);
    const bits = Uint16Array.of(7, ...halves, 7);
    expect([...widen(bits.subarray(1, 3))]).toEqual([1, 2]);
    expect([...bits]).toEqual([7, ...halves, 7]);
  });

  it('takes empty arrays', () => {
    expect(widen(new Uint16Array(0))).toEqual(new Float32Array(0));
    expect(narrow(new Float32Array(0))).toEqual(new Uint16Array(0));
  });

  describe('after roundToOdd', () => {
    it('rounds doubles that are a hair off the middle of two neighbours as if there were no float32 in between', () => {
      const { values } = oracle;
      const middles = values.slice(1).map((value, bits) => (value + (values[bits] as number)) / 2);
      const near = middles.flatMap((middle) => [-1, 0, 1].map((steps) => nextFloat64(middle, steps)));
      const signed = [...near, ...near.map((value) => -value)];
      const narrowed = narrow(roundToOdd(signed));
      expect(signed.filter((value, index) => narrowed[index] !== oracle.narrow(value))).toEqual([]);
    });

    it('rounds any double to the nearest value', () => {
      fc.assert(
        fc.property(fc.double({ noNaN: true }), (value) => {
          expect(narrow(roundToOdd([value]))[0]).toBe(oracle.narrow(value));
        }),
        { numRuns: 2000 },
      );
    });
  });
});

describe('float16', () => {
  it('becomes infinite from 65520 on, the middle of its largest value and 65536', () => {
    const values = Float32Array.of(65504, 65519.99, 65520, 65535, 65536, 3e38, -65519.99, -65520);
    expect([...float32ToFloat16(values)]).toEqual([0x7bff, 0x7bff, 0x7c00, 0x7c00, 0x7c00, 0x7c00, 0xfbff, 0xfc00]);
  });

  it('rounds into and out of its subnormals', () => {
    const tie = 2 ** -25;
    const values = Float32Array.of(tie, nextFloat32(tie, 1), 3 * tie, 2 ** -14 - 2 ** -25, 2 ** -14, -3 * tie);
    expect([...float32ToFloat16(values)]).toEqual([0, 1, 2, 0x400, 0x400, 0x8002]);
  });
});

describe('bfloat16', () => {
  it('becomes infinite above the middle of its largest value and 2^128', () => {
    const border = (2 - 2 ** -8) * 2 ** 127;
    const values = Float32Array.of(nextFloat32(border, -1), border, nextFloat32(border, 1), -border);
    expect([...float32ToBfloat16(values)]).toEqual([0x7f7f, 0x7f80, 0x7f80, 0xff80]);
  });
});

describe('roundToOdd', () => {
  it('leaves alone what float32 has, NaN, and what is beyond its range', () => {
    const values = [0, -0, 1, -1.5, 2 ** -149, Infinity, -Infinity, Number.NaN, 1e300, -1e300];
    expect(roundToOdd(values)).toEqual(Float32Array.from(values));
  });

  it('gives one of the two float32s around a number: the one whose last bit is odd', () => {
    const inexact = fc.double({ min: -3e38, max: 3e38, noNaN: true }).filter((value) => Math.fround(value) !== value);
    fc.assert(
      fc.property(inexact, (value) => {
        const floats = roundToOdd([value]);
        const [word] = new Uint32Array(floats.buffer) as unknown as [number];
        const [below, above] = [word - 1, word + 1].map((near) => Math.abs(float32FromBits(near))) as [number, number];
        expect(word & 1).toBe(1);
        expect(below < Math.abs(value) && Math.abs(value) < above).toBe(true);
        expect(Math.sign(floats[0] as number)).toBe(Math.sign(value));
      }),
    );
  });
});
