// float32 as 8-bit integers with a scale for every 256 elements: symmetric absmax quantisation, one scale a block so that
// one outlier costs precision in its own block only (Dettmers, Lewis, Shleifer, Zettlemoyer, "8-bit Optimizers via
// Block-wise Quantization", ICLR 2022, https://arxiv.org/abs/2110.02861; in use for instance as Q8_0 in ggml).
//
// The bytes, of n elements in row-major order and b = ceil(n / 256) blocks:
//
//   0       scale of block 0      float32, little-endian, finite, 0 or more
//   4       scale of block 1
//   …
//   4·b     code of element 0     int8, two's complement
//   4·b+1   code of element 1
//   …
//   4·b+n   end
//
// Element i has the value code[i] · scale[floor(i / 256)], rounded to float32. The last block may be shorter than 256.
// A block whose scale is 0 holds zeros. -128 is never written, and means -128 · scale where it is read.

/** Elements that share a scale. Part of the wire format. The scales add 1.6 % to the codes. */
export const INT8_BLOCK_ELEMENTS = 256;

const MAX_FLOAT32 = (2 - 2 ** -23) * 2 ** 127;

/** How many bytes this many elements have as blocks. */
export function int8BlocksByteLength(elements: number): number {
  return 4 * Math.ceil(elements / INT8_BLOCK_ELEMENTS) + elements;
}

/**
 * Quantises float32s. With y for what {@link dequantizeInt8Blocks} makes of x, and max for the largest magnitude in its
 * block, |x − y| ≤ scale / 2 ≤ max / 254 · (1 + 2^-16) + 2^-143, exactly and for every x: the scale is max / 127 rounded
 * up to 17 significant bits, and the product of such a number and a 7-bit code is a float32, with nothing to round.
 *
 * @returns The blocks; `undefined` where an element is NaN, infinite or so near the largest float32 that 127 · scale
 * would be beyond it.
 */
export function quantizeInt8Blocks(values: Float32Array): Uint8Array | undefined {
  const { length } = values;
  const blocks = Math.ceil(length / INT8_BLOCK_ELEMENTS);
  const bytes = new Uint8Array(int8BlocksByteLength(length));
  const scales = new Float32Array(bytes.buffer, 0, blocks);
  const scaleBits = new Uint32Array(bytes.buffer, 0, blocks);
  const codes = new Int8Array(bytes.buffer, 4 * blocks, length);
  const words = new Uint32Array(values.buffer, values.byteOffset, length);
  for (let block = 0, start = 0; block < blocks; block++, start += INT8_BLOCK_ELEMENTS) {
    const end = Math.min(start + INT8_BLOCK_ELEMENTS, length);
    // The magnitudes of floats are in the order of their bits, in which NaN and infinity are the largest.
    let largest = 0;
    for (let index = start; index < end; index++) largest = Math.max(largest, (words[index] as number) & 0x7fffffff);
    if (largest >= 0x7f800000) return undefined;
    if (largest === 0) continue;
    scaleBits[block] = largest;
    const exact = (scales[block] as number) / 127;
    scales[block] = exact;
    // Up to a number whose last 7 bits are 0: never down, so no code is beyond 127 and a denormal's scale is not 0. One
    // that has been rounded up to such a number already would be a whole step beyond the bound.
    const isRoundedDown = (scales[block] as number) < exact;
    scaleBits[block] = isRoundedDown
      ? ((scaleBits[block] as number) | 0x7f) + 1
      : ((scaleBits[block] as number) + 0x7f) & ~0x7f;
    const scale = scales[block] as number;
    if (127 * scale > MAX_FLOAT32) return undefined;
    const inverse = 1 / scale;
    // Rounds to nearest, a tie up: what is truncated is positive. Math.round takes several times as long.
    for (let index = start; index < end; index++) {
      codes[index] = (((values[index] as number) * inverse + 128.5) | 0) - 128;
    }
  }
  return bytes;
}

/**
 * The float32 bytes that blocks stand for.
 *
 * @param bytes - As many as {@link int8BlocksByteLength} says.
 * @returns The bytes; the index of the first block whose scale is negative, infinite or NaN, where there is one.
 */
export function dequantizeInt8Blocks(bytes: Uint8Array, elements: number): Uint8Array | { readonly badBlock: number } {
  const blocks = Math.ceil(elements / INT8_BLOCK_ELEMENTS);
  // A copy of 1/64 of the bytes, because they may lie where no float32 may. A Buffer's own slice would be a view.
  const scales = new Float32Array(new Uint8Array(bytes.subarray(0, 4 * blocks)).buffer);
  const badBlock = scales.findIndex((scale) => !(scale >= 0 && scale < Number.POSITIVE_INFINITY));
  if (badBlock !== -1) return { badBlock };
  const codes = new Int8Array(bytes.buffer, bytes.byteOffset + 4 * blocks, elements);
  const values = new Float32Array(elements);
  for (let block = 0, start = 0; block < blocks; block++, start += INT8_BLOCK_ELEMENTS) {
    const scale = scales[block] as number;
    const end = Math.min(start + INT8_BLOCK_ELEMENTS, elements);
    for (let index = start; index < end; index++) values[index] = (codes[index] as number) * scale;
  }
  return new Uint8Array(values.buffer);
}
