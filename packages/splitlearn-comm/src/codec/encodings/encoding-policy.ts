import { COMPRESSORS, type CompressionName, type Compressors } from './compressors.js';
import { isCompression, type TensorEncoding } from './tensor-encoding.js';

/** A link, as far as it is known. `BandwidthEstimate` is one. */
export interface Link {
  /** `undefined` while unknown. */
  readonly bytesPerSecond: number | undefined;
}

/** How fast a compression is, in bytes of the uncompressed side a second. */
export interface CompressionSpeed {
  readonly compressBytesPerSecond: number;
  readonly decompressBytesPerSecond: number;
}

/**
 * Measured on one core of an AMD EPYC (cloud) at level 1, with 4 MiB of float32 activations after a ReLU, which is
 * what compresses well and slowly: Node.js 24.21, rounded down. Normally distributed floats take gzip twice as long, but
 * as they do not get smaller, they are sent raw; token ids and padding go faster.
 */
const COMPRESSION_SPEEDS: Readonly<Record<CompressionName, CompressionSpeed>> = {
  gzip: { compressBytesPerSecond: 80e6, decompressBytesPerSecond: 400e6 },
  zstd: { compressBytesPerSecond: 300e6, decompressBytesPerSecond: 800e6 },
};

/**
 * Smaller tensors are sent raw: about so much goes out at once on a new TCP connection, without waiting for an
 * acknowledgement (an initial window of ten segments, RFC 6928), so compressing it saves no round trip.
 */
export const MIN_AUTO_BYTES = 16 * 1024;

/** Compressing must take a tenth off the time, at least, because all the numbers that it is chosen by are estimates. */
const MIN_GAIN = 0.1;

/**
 * What to send a tensor as so that it is there soonest: compressing, sending the rest and decompressing come one after
 * the other. Only encodings without loss are chosen; values change when somebody asks for that.
 *
 * @param candidates - What both sides support. Any encoding; those with loss are passed over.
 * @param ratioOf - Compressed size over size, as far as it is known. Called only where the link is slow enough for the
 * best possible ratio to matter.
 * @returns `raw` where the bandwidth is unknown, the tensor has fewer than {@link MIN_AUTO_BYTES} or compressing does not
 * pay.
 */
export function chooseEncoding(
  link: Link,
  tensorBytes: number,
  candidates: readonly TensorEncoding[],
  ratioOf: (encoding: CompressionName) => number,
  speeds: Readonly<Record<CompressionName, CompressionSpeed>> = COMPRESSION_SPEEDS,
): TensorEncoding {
  const { bytesPerSecond } = link;
  let best: TensorEncoding = 'raw';
  if (bytesPerSecond === undefined || tensorBytes < MIN_AUTO_BYTES) return best;
  // Seconds a byte: the tensor's size is on both sides of the comparison.
  let bestTime = (1 - MIN_GAIN) / bytesPerSecond;
  for (const encoding of candidates) {
    if (!isCompression(encoding)) continue;
    const { compressBytesPerSecond, decompressBytesPerSecond } = speeds[encoding];
    const computing = 1 / compressBytesPerSecond + 1 / decompressBytesPerSecond;
    if (computing >= bestTime) continue;
    const time = computing + ratioOf(encoding) / bytesPerSecond;
    if (time < bestTime) [best, bestTime] = [encoding, time];
  }
  return best;
}

/** Bytes of each of the two samples, of a tensor's beginning and its middle; the beginning alone may be padding. */
const SAMPLE_BYTES = 32 * 1024;

/**
 * Compressed size over size, from a sample of 64 KiB: some 1 ms for gzip, 0.1 ms for zstd, whatever the tensor's size.
 * 1 for what does not get smaller.
 */
export function sampleRatio(
  bytes: Uint8Array,
  encoding: CompressionName,
  compressors: Compressors = COMPRESSORS,
): number {
  // At multiples of 8 bytes, so that a middle is not cut out of step with the elements.
  const middle = Math.max(SAMPLE_BYTES, 8 * Math.floor(bytes.byteLength / 16));
  const samples = [bytes.subarray(0, SAMPLE_BYTES), bytes.subarray(middle, middle + SAMPLE_BYTES)];
  let [size, compressed] = [0, 0];
  for (const sample of samples) {
    size += sample.byteLength;
    compressed += compressors[encoding]?.compressSync(sample)?.byteLength ?? sample.byteLength;
  }
  return size === 0 ? 1 : compressed / size;
}

export interface EncodingPolicyOptions {
  /** What both sides support. Only `gzip` and `zstd` are ever chosen, beside `raw`. */
  readonly candidates: readonly TensorEncoding[];
  /** The link that tensors are sent over; asked anew for each. */
  readonly link: Link;
}

/** What `encoding: 'auto'` means: {@link chooseEncoding} with what a sample of each tensor compresses to. */
export class EncodingPolicy {
  readonly #candidates: readonly TensorEncoding[];
  readonly #link: Link;

  constructor({ candidates, link }: EncodingPolicyOptions) {
    this.#candidates = candidates;
    this.#link = link;
  }

  /** What to send a tensor as whose raw encoding has these bytes. Blocks for 2 ms at most. */
  choose(bytes: Uint8Array): TensorEncoding {
    return chooseEncoding(this.#link, bytes.byteLength, this.#candidates, (encoding) => sampleRatio(bytes, encoding));
  }
}
