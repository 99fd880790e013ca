// float16 (IEEE 754 binary16) and bfloat16 (the upper half of a float32) to and from float32. Narrowing rounds to
// nearest, ties to even; NaN stays NaN, and what is beyond the range becomes infinity. The arrays are mapped in place of
// TypedArray.from with a function, which takes ten times as long.

const scratch = new DataView(new ArrayBuffer(4));

/** Widens float16 bits to float32; exact for every value. */
export function float16ToFloat32(bits: Uint16Array): Float32Array {
  return new Float32Array(bits).map((half) => {
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}

/** Rounds float32 to float16 bits. */
export function float32ToFloat16(values: Float32Array): Uint16Array {
  const halves = values.map((value) => {
    scratch.setFloat32(0, value);
    const bits = scratch.getUint32(0);
    const sign = (bits >>> 16) & 0x8000;
    const magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00; // NaN
    if (magnitude >= 0x47800000) return sign | 0x7c00; // 65536 and more, infinity among them
    if (magnitude < 0x38800000) {
      // Below 2^-14 float16 is subnormal, a multiple of 2^-24. The addition rounds to one, in float32's own hardware way:
      // at 0.5 the last bit of a float32 is worth 2^-24.
      scratch.setFloat32(0, Math.abs(value) + 0.5);
      return sign | (scratch.getUint32(0) - 0x3f000000);
    }
    const odd = (magnitude >>> 13) & 1;
    return sign | ((magnitude - 0x38000000 + 0xfff + odd) >>> 13);
  });
  return new Uint16Array(halves);
}

/** Widens bfloat16 bits to float32; exact for every value. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const words = new Uint32Array(bits).map((half) => half << 16);
  return new Float32Array(words.buffer);
}

/** Rounds float32 to bfloat16 bits. */
export function float32ToBfloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.slice().buffer).map((word) => {
    if ((word & 0x7fffffff) > 0x7f800000) return (word >>> 16) | 0x40; // keep NaN a NaN when its low bits go
    return (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  });
  return new Uint16Array(words);
}

/**
 * Narrows numbers to float32 in such a way that narrowing the result once more gives what narrowing the number at once
 * would have given: what lies between two float32s becomes the one whose last bit is odd, and so never looks like a tie.
 */
export function roundToOdd(values: readonly number[]): Float32Array {
  const floats = Float32Array.from(values);
  const words = new Uint32Array(floats.buffer);
  values.forEach((value, index) => {
    const float = floats[index] as number;
    const word = words[index] as number;
    if (float === value || !Number.isFinite(float) || word & 1) return;
    words[index] = Math.abs(float) < Math.abs(value) ? word + 1 : word - 1;
  });
  return floats;
}
