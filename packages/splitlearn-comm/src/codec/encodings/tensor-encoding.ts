import { CommError } from '../../errors.js';
import { COMPRESSORS, type CompressionName, type Compressor, type Compressors } from './compressors.js';

/**
 * How a tensor's elements are written on the wire. Whatever the encoding, the receiver gets the sender's dtype back.
 *
 * | encoding   | applies to | share of raw | an element is off by at most                                       |
 * |------------|------------|--------------|--------------------------------------------------------------------|
 * | `raw`      | all        | 1            | 0                                                                  |
 * | `float16`  | `float32`  | 1/2          | 2^-11 of itself; below 2^-14, 2^-25                                |
 * | `bfloat16` | `float32`  | 1/2          | 2^-8 of itself; below 2^-126, 2^-134                               |
 * | `int8`     | `float32`  | 0.254        | 1/254 of the largest magnitude in its block of 256, and 2^-16 more |
 * | `gzip`     | all        | by content   | 0                                                                  |
 * | `zstd`     | all        | by content   | 0                                                                  |
 *
 * The lossy ones leave `float64` alone: who sends doubles wants their precision. A tensor with an element that an
 * encoding cannot hold is written raw: a finite one beyond the range of `float16` or `bfloat16`; NaN or infinity in
 * `int8`. NaN stays NaN in the 16-bit floats, but loses its payload.
 */
export type TensorEncoding = 'raw' | 'float16' | 'bfloat16' | 'int8' | CompressionName;

const ENCODINGS: readonly TensorEncoding[] = ['raw', 'float16', 'bfloat16', 'int8', 'gzip', 'zstd'];

/** The encodings that this runtime can write and read: all but `zstd` on Node.js before 22.15 and 23.8. */
export function supportedEncodings(compressors: Compressors = COMPRESSORS): readonly TensorEncoding[] {
  return ENCODINGS.filter((encoding) => !isCompression(encoding) || compressors[encoding]);
}

/** Whether an encoding compresses bytes, whatever they mean, without loss. */
export function isCompression(encoding: TensorEncoding): encoding is CompressionName {
  return encoding === 'gzip' || encoding === 'zstd';
}

/**
 * The compressor of an encoding; `undefined` for an encoding that needs none.
 *
 * @throws CommError `INVALID_ARGUMENT` for an unknown encoding, `UNIMPLEMENTED` for one that the runtime lacks.
 */
export function compressorFor(
  encoding: TensorEncoding,
  name: string,
  compressors: Compressors = COMPRESSORS,
): Compressor | undefined {
  if (!ENCODINGS.includes(encoding)) {
    const known = `known are ${ENCODINGS.join(', ')}`;
    throw new CommError(
      'INVALID_ARGUMENT',
      `tensor '${name}' has the unknown encoding ${JSON.stringify(encoding)}; ${known}`,
    );
  }
  if (!isCompression(encoding)) return undefined;
  const compressor = compressors[encoding];
  if (compressor) return compressor;
  throw new CommError(
    'UNIMPLEMENTED',
    `tensor '${name}' has the encoding ${encoding}, which Node.js has since 22.15 and 23.8, and this one has not`,
  );
}
