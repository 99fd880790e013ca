import { constants } from 'node:buffer';
import { assertInteger } from '../check-options.js';
import { CommError } from '../errors.js';
import { DEFAULT_MAX_MESSAGE_BYTES, MESSAGE_TOO_LARGE } from '../grpc/channel.js';
import { bytesPerElement, elementCount, isDType, type Tensor } from '../tensor.js';
import { COMPRESSORS, type Compressors, MalformedBytesError, TooManyBytesError } from './encodings/compressors.js';
import { castFromBfloat16, castFromFloat16, castToBfloat16, castToFloat16 } from './encodings/float-casts.js';
import { dequantizeInt8Blocks, int8BlocksByteLength, quantizeInt8Blocks } from './encodings/int8-blocks.js';
import { compressorFor, type TensorEncoding } from './encodings/tensor-encoding.js';
import { type EncodedTensor, TensorCodec } from './tensor-codec.js';

export { supportedEncodings, type TensorEncoding } from './encodings/tensor-encoding.js';

/** A tensor's elements on the wire. */
export interface EncodedData {
  /** How `data` is to be read. */
  readonly encoding: TensorEncoding;
  readonly data: Uint8Array;
}

/** A tensor as the bytes of an encoding. */
export interface CompressedTensor extends EncodedTensor, EncodedData {}

/** Fewer bytes are not compressed: they fit into one packet of an Ethernet, where a smaller one is no faster. */
const MIN_COMPRESSED_BYTES = 1024;

/**
 * From here on {@link encodeAsAsync} and {@link decodeFromAsync} leave (de)compression to libuv's thread pool. What is
 * below blocks the event loop for 8 ms at most (gzip, measured at 35 MB/s), which the way to a thread and back, and its
 * place in the queue with file system and DNS, would not make much better.
 */
export const OFF_THREAD_BYTES = 256 * 1024;

/**
 * Writes a tensor's elements in an encoding, or raw where that does not apply or makes nothing smaller.
 *
 * Blocks the event loop: a megabyte of floats takes up to 25 ms as `gzip`, 4 ms as `zstd`, 1 ms as anything else.
 *
 * @returns The data; raw numeric data is a view on the tensor's, not a copy.
 * @throws CommError `INVALID_ARGUMENT` when the value is no valid tensor or the encoding is unknown; `UNIMPLEMENTED` for
 * an encoding that `supportedEncodings` does not have.
 */
export function encodeAs(
  encoding: TensorEncoding,
  tensor: Tensor,
  name = 'tensor',
  compressors: Compressors = COMPRESSORS,
): EncodedData {
  const raw = rawCodec.encode(tensor, name).data;
  const compressor = compressorFor(encoding, name, compressors);
  if (!compressor) return smaller(encoding, castTo(encoding, tensor), raw);
  return smaller(encoding, raw.byteLength < MIN_COMPRESSED_BYTES ? undefined : compressor.compressSync(raw), raw);
}

/**
 * {@link encodeAs} for large tensors: compresses {@link OFF_THREAD_BYTES} and more in libuv's thread pool. The tensor must
 * not change until it is done.
 */
export async function encodeAsAsync(
  encoding: TensorEncoding,
  tensor: Tensor,
  name = 'tensor',
  compressors: Compressors = COMPRESSORS,
): Promise<EncodedData> {
  const compressor = compressorFor(encoding, name, compressors);
  if (!compressor) return encodeAs(encoding, tensor, name, compressors);
  const raw = rawCodec.encode(tensor, name).data;
  if (raw.byteLength < OFF_THREAD_BYTES) return encodeAs(encoding, tensor, name, compressors);
  return smaller(encoding, await compressor.compress(raw), raw);
}

/**
 * Reads the elements of a tensor that {@link encodeAs} wrote: their bytes, little-endian and row-major, on memory of their
 * own. Those of a raw tensor are the bytes given, which `TensorCodec.decode` is left to check.
 *
 * @param maxBytes - The most that the elements may have, an integer of 0 or more. Dtype and shape are checked against it
 * before anything is allocated or decompressed; strings, whose size no shape tells, are decompressed up to it. Where it
 * is a limit for a message, it has to be less what the message's earlier tensors took: else each of many tensors of a few
 * bytes may unfold to all of it.
 * @throws CommError `RESOURCE_EXHAUSTED` (reason `MESSAGE_TOO_LARGE`) for elements of more than `maxBytes`;
 * `INVALID_ARGUMENT` for an unknown encoding or dtype, an encoding that the dtype cannot have, an impossible shape, and
 * data that is malformed or not as much as dtype and shape need; `UNIMPLEMENTED` for an encoding that this runtime lacks.
 */
export function decodeFrom(
  encoding: TensorEncoding,
  encoded: EncodedTensor,
  maxBytes: number,
  name = 'tensor',
  compressors: Compressors = COMPRESSORS,
): Uint8Array {
  const compressor = compressorFor(encoding, name, compressors);
  const decoding = planDecoding(encoding, encoded, maxBytes, name);
  if (!compressor) return castFrom(decoding);
  try {
    return assertDecompressed(compressor.decompressSync(encoded.data, decoding.bytes, decoding.exact), decoding);
  } catch (error) {
    throw explained(error, decoding);
  }
}

/** {@link decodeFrom} for large tensors: decompresses to {@link OFF_THREAD_BYTES} and more in libuv's thread pool. */
export async function decodeFromAsync(
  encoding: TensorEncoding,
  encoded: EncodedTensor,
  maxBytes: number,
  name = 'tensor',
  compressors: Compressors = COMPRESSORS,
): Promise<Uint8Array> {
  const compressor = compressorFor(encoding, name, compressors);
  const decoding = planDecoding(encoding, encoded, maxBytes, name);
  if (!compressor || decoding.bytes < OFF_THREAD_BYTES) {
    return decodeFrom(encoding, encoded, maxBytes, name, compressors);
  }
  try {
    return assertDecompressed(await compressor.decompress(encoded.data, decoding.bytes, decoding.exact), decoding);
  } catch (error) {
    throw explained(error, decoding);
  }
}

export interface CompressedTensorCodecOptions {
  /** What tensors are written as. It does not matter for reading, because each tensor says what it is. */
  readonly encoding: TensorEncoding;
  /**
   * The most bytes that the elements of a decoded tensor may have, an integer of 0 or more; a tensor of more is
   * `RESOURCE_EXHAUSTED`. Default: 67108864, that is 64 MiB, as for messages.
   */
  readonly maxBytes?: number;
}

/** Tensors to bytes of an encoding and back, in the dtype they had. `byteLength` is the most that `encode` gives. */
export class CompressedTensorCodec extends TensorCodec {
  readonly #encoding: TensorEncoding;
  readonly #maxBytes: number;

  /** @throws CommError `INVALID_ARGUMENT` for an unknown encoding, `UNIMPLEMENTED` for one that this runtime lacks. */
  constructor({ encoding, maxBytes = DEFAULT_MAX_MESSAGE_BYTES }: CompressedTensorCodecOptions) {
    super();
    assertInteger('maxBytes', maxBytes, 0);
    compressorFor(encoding, 'tensor');
    this.#encoding = encoding;
    this.#maxBytes = maxBytes;
  }

  /** As {@link encodeAs}, which also says what is thrown. */
  override encode(tensor: Tensor, name = 'tensor'): CompressedTensor {
    const encoded = encodeAs(this.#encoding, tensor, name);
    return { dtype: tensor.dtype, shape: tensor.shape, ...encoded };
  }

  /** As {@link decodeFrom}, which also says what is thrown. A tensor without an encoding is raw. */
  override decode(encoded: EncodedTensor & Partial<EncodedData>, name = 'tensor'): Tensor {
    const data = decodeFrom(encoded.encoding ?? 'raw', encoded, this.#maxBytes, name);
    return super.decode({ dtype: encoded.dtype, shape: encoded.shape, data }, name);
  }
}

const rawCodec = new TensorCodec();

function castTo(encoding: TensorEncoding, tensor: Tensor): Uint8Array | undefined {
  if (tensor.dtype !== 'float32') return undefined;
  if (encoding === 'float16') return castToFloat16(tensor.data);
  if (encoding === 'bfloat16') return castToBfloat16(tensor.data);
  if (encoding === 'int8') return quantizeInt8Blocks(tensor.data);
  return undefined;
}

function smaller(encoding: TensorEncoding, data: Uint8Array | undefined, raw: Uint8Array): EncodedData {
  return data && data.byteLength < raw.byteLength ? { encoding, data } : { encoding: 'raw', data: raw };
}

/** What is known of a tensor before it is decoded. */
interface Decoding {
  readonly encoding: TensorEncoding;
  readonly data: Uint8Array;
  readonly elements: number;
  /** Of the decoded elements: how many there must be, or, where `exact` is not set, may be. */
  readonly bytes: number;
  readonly exact: boolean;
  readonly dtype: string;
  /** The tensor, in an error's message. */
  readonly subject: string;
}

function planDecoding(
  encoding: TensorEncoding,
  { dtype, shape, data }: EncodedTensor,
  maxBytes: number,
  name: string,
): Decoding {
  if (!isDType(dtype)) throw invalid(`tensor '${name}' has the unknown dtype ${JSON.stringify(dtype)}`);
  const elements = elementCount(shape, name);
  const subject = `tensor '${name}' of dtype ${dtype} and shape [${shape}]`;
  const size = bytesPerElement(dtype);
  // A string has the four bytes of its length, at least.
  const needed = elements * (size ?? 4);
  if (needed > maxBytes) throw tooLarge(`${subject} has ${size ? '' : 'at least '}${needed} bytes`, maxBytes);
  // Node.js refuses limits beyond the largest buffer it can make.
  const bytes = Math.min(size ? needed : maxBytes, constants.MAX_LENGTH - 1);
  return { encoding, data, elements, bytes, exact: size !== undefined, dtype, subject };
}

function castFrom({ encoding, data, elements, bytes, exact, dtype, subject }: Decoding): Uint8Array {
  if (encoding === 'raw') {
    if (!exact && data.byteLength > bytes) throw tooLarge(`${subject} has ${data.byteLength} bytes`, bytes);
    return data;
  }
  if (dtype !== 'float32') throw invalid(`${subject} cannot have the encoding ${encoding}, which is for float32`);
  const expected = encoding === 'int8' ? int8BlocksByteLength(elements) : 2 * elements;
  if (data.byteLength !== expected) {
    throw invalid(`${subject} needs ${expected} bytes as ${encoding}, but has ${data.byteLength}`);
  }
  if (encoding === 'float16') return castFromFloat16(data);
  if (encoding === 'bfloat16') return castFromBfloat16(data);
  const values = dequantizeInt8Blocks(data, elements);
  if (values instanceof Uint8Array) return values;
  throw invalid(`${subject} has a scale that is negative or not finite, in its int8 block ${values.badBlock}`);
}

function assertDecompressed(
  bytes: Uint8Array,
  { encoding, data, bytes: expected, exact, subject }: Decoding,
): Uint8Array {
  if (!exact || bytes.byteLength === expected) return bytes;
  const found = `its ${data.byteLength} bytes of ${encoding} decompress to ${bytes.byteLength}`;
  throw invalid(`${subject} needs ${expected} bytes, but ${found}`);
}

/** What a failed decompression is to a caller. */
function explained(error: unknown, { encoding, data, bytes, exact, subject }: Decoding): unknown {
  const source = `${data.byteLength} bytes of ${encoding}`;
  if (error instanceof MalformedBytesError) {
    return invalid(`${subject} has ${data.byteLength} bytes that are no ${encoding}: ${error.message}`, error);
  }
  if (!(error instanceof TooManyBytesError)) return error;
  if (!exact) return tooLarge(`${subject} has ${source} that decompress to more`, bytes);
  return invalid(`${subject} needs ${bytes} bytes, but its ${source} decompress to more`, error);
}

function tooLarge(what: string, maxBytes: number): CommError {
  return new CommError('RESOURCE_EXHAUSTED', `${what}, more than the ${maxBytes} bytes that are allowed`, {
    reason: MESSAGE_TOO_LARGE,
  });
}

function invalid(message: string, cause?: unknown): CommError {
  return new CommError('INVALID_ARGUMENT', message, { cause });
}
