import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dequantizeInt8Blocks, INT8_BLOCK_ELEMENTS, int8BlocksByteLength, quantizeInt8Blocks } from './int8-blocks.js';

const MAX_FLOAT32 = 3.4028234663852886e38;

function quantized(values: Float32Array): Uint8Array {
  const bytes = quantizeInt8Blocks(values);
  if (!bytes) throw new Error('these values should have been quantised');
  return bytes;
}

function dequantized(bytes: Uint8Array, elements: number): Float32Array {
  const values = dequantizeInt8Blocks(bytes, elements);
  if (!(values instanceof Uint8Array)) throw new Error(`block ${values.badBlock} should not have been refused`);
  return new Float32Array(values.buffer);
}

/** Blocks of magnitudes of their own, from denormals to the largest, and of lengths that do not fill the last one. */
const values = fc
  .array(
    fc.record({
      exponent: fc.integer({ min: -149, max: 127 }),
      fractions: fc.array(
        fc.oneof(fc.float({ min: -1, max: 1, noNaN: true }), fc.constantFrom(0, -0, 1, -1, 0.5 / 127)),
        {
          minLength: 1,
          maxLength: 40,
        },
      ),
      length: fc.constantFrom(INT8_BLOCK_ELEMENTS, INT8_BLOCK_ELEMENTS, 1, 255),
    }),
    { maxLength: 4 },
  )
  .map((blocks) =>
    Float32Array.from(
      blocks.flatMap(({ exponent, fractions, length }) =>
        Array.from({ length }, (_, index) => (fractions[index % fractions.length] as number) * 2 ** exponent),
      ),
    ),
  );

describe('int8 blocks', () => {
  it('are off by no more than half a scale, and by 1/254 of their largest magnitude', () => {
    fc.assert(
      fc.property(values, (originals) => {
        const bytes = quantized(originals);
        expect(bytes.byteLength).toBe(int8BlocksByteLength(originals.length));
        const back = dequantized(bytes, originals.length);
        const view = new DataView(bytes.buffer);
        for (let start = 0; start < originals.length; start += INT8_BLOCK_ELEMENTS) {
          const block = originals.subarray(start, start + INT8_BLOCK_ELEMENTS);
          const largest = block.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
          const scale = view.getFloat32((4 * start) / INT8_BLOCK_ELEMENTS, true);
          expect(scale / 2).toBeLessThanOrEqual((largest / 254) * (1 + 2 ** -16) + 2 ** -143);
          const off = block.reduce(
            (max, value, at) => Math.max(max, Math.abs(value - (back[start + at] as number))),
            0,
          );
          expect(off).toBeLessThanOrEqual(scale / 2);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('lie as scales, then codes', () => {
    const originals = new Float32Array(258).fill(127, 0, 256);
    originals.set([-63.5, 63.4, 127], 1);
    originals.set([-2, 1], 256);
    const bytes = quantized(originals);
    expect(bytes.byteLength).toBe(2 * 4 + 258);
    const view = new DataView(bytes.buffer);
    // 127 / 127, which is one, and 2 / 127 up to the next float32 whose last seven bits are 0.
    expect([view.getUint32(0, true), view.getUint32(4, true)]).toEqual([0x3f800000, 0x3c810280]);
    expect([...new Int8Array(bytes.buffer, 8, 5)]).toEqual([127, -63, 63, 127, 127]);
    expect([...new Int8Array(bytes.buffer, 8 + 256)]).toEqual([-127, 63]);
  });

  it('are read as code times scale, whoever wrote them and wherever they are', () => {
    const bytes = new Uint8Array(3 + 4 + 4);
    const view = new DataView(bytes.buffer);
    view.setFloat32(3, 0.75, true);
    bytes.set([127, 0x81, 0x80, 1], 7);
    expect([...dequantized(bytes.subarray(3), 4)]).toEqual([95.25, -95.25, -96, 0.75]);
    expect([...dequantized(Buffer.from(bytes).subarray(3), 4)]).toEqual([95.25, -95.25, -96, 0.75]);
  });

  it('decode to products that float32 has exactly, so that every reader gets the same', () => {
    fc.assert(
      fc.property(fc.float({ min: Math.fround(1e-30), max: Math.fround(1e30), noNaN: true }), (value) => {
        const scale = new DataView(quantized(Float32Array.of(value)).buffer).getFloat32(0, true);
        for (const code of [1, 3, 85, 126, 127]) expect(Math.fround(code * scale)).toBe(code * scale);
      }),
    );
  });

  it('keep an outlier’s harm to its own block', () => {
    const originals = new Float32Array(512).fill(1);
    originals[0] = 1e6;
    const back = dequantized(quantized(originals), 512);
    expect(back[1]).toBe(0);
    expect(Math.abs((back[256] as number) - 1)).toBeLessThan(0.004);
  });

  it('of zeros have the scale 0 and are zeros', () => {
    const bytes = quantized(Float32Array.from({ length: 300 }, (_, index) => (index % 2 ? 0 : -0)));
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    expect(dequantized(bytes, 300).every((value) => Object.is(value, 0))).toBe(true);
  });

  it('of denormals have a scale above 0, and are denormals as large as they were', () => {
    const originals = Float32Array.of(2 ** -149, 2 ** -130, -(2 ** -127));
    const back = dequantized(quantized(originals), 3);
    expect(back[2]).toBeLessThan(-(2 ** -127) * 0.99);
    expect(Math.abs((back[1] as number) - 2 ** -130)).toBeLessThanOrEqual(2 ** -127 / 254 + 2 ** -143);
  });

  it('have no scale beyond the bound where rounding to float32 alone makes one whose last seven bits are 0', () => {
    const scaleOf = (units: number) =>
      new DataView(quantized(Float32Array.of(units * 2 ** -149)).buffer).getUint32(0, true);
    expect(scaleOf(127 * 128 * 3)).toBe(128 * 3);
    expect(scaleOf(127 * 128 * 3 - 60)).toBe(128 * 3);
    expect(scaleOf(127 * 128 * 3 + 60)).toBe(128 * 4);
  });

  it.each([Number.NaN, Infinity, -Infinity, MAX_FLOAT32, -MAX_FLOAT32])('are not made of %d', (value) => {
    expect(quantizeInt8Blocks(new Float32Array(300).fill(value, 299))).toBeUndefined();
  });

  it('are made of what is a little less than the largest float32, and stay finite', () => {
    const back = dequantized(quantized(Float32Array.of(MAX_FLOAT32 * (1 - 2 ** -15), -3.4e38)), 2);
    expect(back.every(Number.isFinite)).toBe(true);
  });

  it.each([Number.NaN, Infinity, -1])('are refused for a scale of %d', (scale) => {
    const bytes = quantized(new Float32Array(600).fill(1));
    new DataView(bytes.buffer).setFloat32(8, scale, true);
    expect(dequantizeInt8Blocks(bytes, 600)).toEqual({ badBlock: 2 });
  });

  it('of a view on a larger array are those of its part, and leave it alone', () => {
    const originals = Float32Array.of(9, 1, -1, 9);
    expect(quantized(originals.subarray(1, 3))).toEqual(quantized(Float32Array.of(1, -1)));
    expect([...originals]).toEqual([9, 1, -1, 9]);
  });

  it('of nothing are nothing', () => {
    expect(quantized(new Float32Array(0))).toEqual(new Uint8Array(0));
    expect(dequantized(new Uint8Array(0), 0)).toEqual(new Float32Array(0));
  });
});
