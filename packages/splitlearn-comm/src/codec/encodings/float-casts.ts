import { float16ToFloat32 } from '../../half.js';

// float32 to and from 16-bit floats, as bytes. The rounding is that of half.ts, which these loops are tested against;
// loops over the bits are five to ten times as fast as mapping the values one by one, and messages are megabytes.

/**
 * float32 rounded to float16 (IEEE 754-2019 binary16), nearest, ties to even. An element is off by at most 2^-11 of
 * itself, below 2^-14 by at most 2^-25. Infinities stay what they are, and NaN stays a NaN but loses its payload.
 *
 * @returns Two bytes an element, little-endian; `undefined` where a finite element is beyond float16's range, at
 * ±65520, as an infinity in its place is no rounding error.
 */
export function castToFloat16(values: Float32Array): Uint8Array | undefined {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  for (let index = 0; index < words.length; index++) {
    const word = words[index] as number;
    const sign = (word >>> 16) & 0x8000;
    const magnitude = word & 0x7fffffff;
    if (magnitude >= 0x477ff000) {
      if (magnitude < 0x7f800000) return undefined;
      halves[index] = sign | (magnitude > 0x7f800000 ? 0x7e00 : 0x7c00);
    } else if (magnitude < 0x38800000) {
      // Subnormal in float16, a multiple of 2^-24: what the last bit of a float32 is worth at 0.5, so adding rounds.
      float[0] = Math.abs(values[index] as number) + 0.5;
      halves[index] = sign | ((bits[0] as number) - 0x3f000000);
    } else {
      halves[index] = sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
    }
  }
  return new Uint8Array(halves.buffer);
}

/** All 65536 float16s as float32 bits, 256 KiB, made when first needed. */
let widened: Uint32Array | undefined;

/** float16 bytes widened to float32 bytes; exact. */
export function castFromFloat16(bytes: Uint8Array): Uint8Array {
  widened ??= new Uint32Array(float16ToFloat32(Uint16Array.from({ length: 0x10000 }, (_, half) => half)).buffer);
  const table = widened;
  const halves = asUint16(bytes);
  const words = new Uint32Array(halves.length);
  for (let index = 0; index < halves.length; index++) words[index] = table[halves[index] as number] as number;
  return new Uint8Array(words.buffer);
}

/**
 * float32 rounded to bfloat16, its upper 16 bits: nearest, ties to even. A normal element is off by at most 2^-8 of
 * itself, below 2^-126 by at most 2^-134. Infinities stay what they are, and NaN stays a NaN.
 *
 * @returns Two bytes an element, little-endian; `undefined` where a finite element would become infinite, at ±3.396e38.
 */
export function castToBfloat16(values: Float32Array): Uint8Array | undefined {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(values.length);
  for (let index = 0; index < words.length; index++) {
    const word = words[index] as number;
    const magnitude = word & 0x7fffffff;
    if (magnitude >= 0x7f7f8000 && magnitude < 0x7f800000) return undefined;
    // A NaN would turn into an infinity, were all bits that make it one in the half that goes.
    halves[index] = magnitude > 0x7f800000 ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return new Uint8Array(halves.buffer);
}

/** bfloat16 bytes widened to float32 bytes; exact. */
export function castFromBfloat16(bytes: Uint8Array): Uint8Array {
  const halves = asUint16(bytes);
  const words = new Uint32Array(halves.length);
  for (let index = 0; index < halves.length; index++) words[index] = (halves[index] as number) << 16;
  return new Uint8Array(words.buffer);
}

function asUint16(bytes: Uint8Array): Uint16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes);
  return new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 2);
}
