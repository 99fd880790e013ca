import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from '../../half.js';
import { castFromBfloat16, castFromFloat16, castToBfloat16, castToFloat16 } from './float-casts.js';

const allBits = Uint16Array.from({ length: 0x10000 }, (_, bits) => bits);
const hex = (view: ArrayBufferView) => Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString('hex');
const floatOf = (word: number) => new Float32Array(Uint32Array.of(word).buffer)[0] as number;
const anyFloat = fc.integer({ min: 0, max: 0xffffffff }).map(floatOf);

const formats = [
  {
    name: 'float16',
    to: castToFloat16,
    from: castFromFloat16,
    narrow: float32ToFloat16,
    widen: float16ToFloat32,
    largest: 0x477fefff, // a hair below 65520
    relative: 2 ** -11,
    absolute: 2 ** -25,
  },
  {
    name: 'bfloat16',
    to: castToBfloat16,
    from: castFromBfloat16,
    narrow: float32ToBfloat16,
    widen: bfloat16ToFloat32,
    largest: 0x7f7f7fff,
    relative: 2 ** -8,
    absolute: 2 ** -134,
  },
];

describe.each(formats)('$name', ({ to, from, narrow, widen, largest, relative, absolute }) => {
  it('widens every bit pattern as half.ts does', () => {
    expect(hex(from(new Uint8Array(allBits.buffer)))).toBe(hex(widen(allBits)));
  });

  it('narrows as half.ts does, at and beside the middle of any two neighbours', () => {
    const values = [...widen(allBits.subarray(0, 0x7c00))].filter((value) => value <= floatOf(largest));
    const middles = values.slice(1).map((value, index) => (value + (values[index] as number)) / 2);
    const words = new Uint32Array(Float32Array.from(middles).buffer);
    const beside = [...words].flatMap((word) => [word - 1, word, word + 1]).filter((word) => word <= largest);
    const floats = Float32Array.from(beside.flatMap((word) => [floatOf(word), -floatOf(word)]));
    expect(hex(to(floats) as Uint8Array)).toBe(hex(narrow(floats)));
  });

  it('narrows any float32 as half.ts does, unless that makes a finite one infinite', () => {
    fc.assert(
      fc.property(anyFloat, (value) => {
        const float = Float32Array.of(value);
        const halves = narrow(float);
        const overflows = Number.isFinite(value) && !Number.isFinite(widen(halves)[0]);
        expect(to(float)).toEqual(overflows ? undefined : new Uint8Array(halves.buffer));
      }),
      { numRuns: 5000 },
    );
  });

  it('is off by no more than is promised', () => {
    const inRange = anyFloat.filter((value) => Math.abs(value) <= floatOf(largest));
    fc.assert(
      fc.property(inRange, (value) => {
        const [back] = new Float32Array(from(to(Float32Array.of(value)) as Uint8Array).buffer) as unknown as [number];
        expect(Math.abs(back - value)).toBeLessThanOrEqual(Math.max(relative * Math.abs(value), absolute));
      }),
      { numRuns: 2000 },
    );
  });

  it('holds values up to where they would round to infinity, and refuses those beyond', () => {
    for (const sign of [1, -1]) {
      expect(to(Float32Array.of(1, sign * floatOf(largest)))).toBeDefined();
      expect(to(Float32Array.of(1, sign * floatOf(largest + 1)))).toBeUndefined();
      expect(to(Float32Array.of(1, sign * floatOf(0x7f7fffff)))).toBeUndefined();
    }
  });

  it('keeps zeros’ signs, infinities and NaNs, also those whose payload is in the lowest bits', () => {
    const words = Uint32Array.of(0, 0x80000000, 0x7f800000, 0xff800000, 0x7f800001, 0xff800001, 0x7fc00000);
    const back = new Float32Array(from(to(new Float32Array(words.buffer)) as Uint8Array).buffer);
    const { NaN: nan } = Number;
    expect([...back]).toEqual([0, -0, Infinity, -Infinity, nan, nan, nan]);
  });

  it('reads views of larger buffers where they are, bytes also at odd offsets', () => {
    const bytes = to(Float32Array.of(9, 1, 2, 9).subarray(1, 3)) as Uint8Array;
    expect(hex(bytes)).toBe(hex(narrow(Float32Array.of(1, 2))));
    const odd = Buffer.from([7, ...bytes, 7]).subarray(1, 5);
    expect([...new Float32Array(from(odd).buffer)]).toEqual([1, 2]);
  });
});
