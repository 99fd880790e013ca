import { endianness } from 'node:os';
import { CommError } from '../errors.js';
import {
  assertTensor,
  bytesPerElement,
  type DType,
  elementCount,
  isDType,
  type Tensor,
  TYPED_ARRAYS,
} from '../tensor.js';

if (endianness() !== 'LE') throw new Error('@splitlearn/comm runs on little-endian machines only');

/** A tensor as bytes. */
export interface EncodedTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Little-endian, row-major; a string is a 4-byte little-endian byte length and its UTF-8 bytes. */
  readonly data: Uint8Array;
}

const utf8Encoder = new TextEncoder();
// Fatal, because replacement characters would lose data silently; ignoreBOM, because a BOM is data like any other.
const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Tensors to bytes and back, bit for bit. Bytes are checked before anything is allocated for them. */
export class TensorCodec {
  /**
   * The bytes of a tensor. Numeric data is not copied: the result is a view on it.
   *
   * @throws CommError `INVALID_ARGUMENT` when the value is no valid tensor, or a string has no UTF-8 form.
   */
  encode(tensor: Tensor, name = 'tensor'): EncodedTensor {
    assertTensor(tensor, name);
    const { dtype, shape, data } = tensor;
    if (dtype === 'string') return { dtype, shape, data: encodeStrings(data, name) };
    return { dtype, shape, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
  }

  /**
   * The tensor of some bytes. Numeric data is a view on the bytes where they are aligned for it, else a copy.
   *
   * @throws CommError `INVALID_ARGUMENT` for an unknown dtype, an impossible shape, bytes that are not as many as
   * shape and dtype need, and strings whose lengths or UTF-8 are wrong.
   */
  decode(encoded: EncodedTensor, name = 'tensor'): Tensor {
    const { dtype, shape, data } = encoded;
    if (!isDType(dtype)) throw invalid(`tensor '${name}' has the unknown dtype ${JSON.stringify(dtype)}`);
    const count = elementCount(shape, name);
    if (dtype === 'string') return { dtype, shape, data: decodeStrings(data, count, shape, name) };
    const array = TYPED_ARRAYS[dtype];
    const expected = count * array.BYTES_PER_ELEMENT;
    if (data.byteLength !== expected) {
      throw invalid(
        `tensor '${name}' of dtype ${dtype} and shape [${shape}] needs ${expected} bytes, but has ${data.byteLength}`,
      );
    }
    if (dtype === 'bool') {
      const wrong = data.findIndex((byte) => byte > 1);
      if (wrong !== -1) throw invalid(`tensor '${name}' of dtype bool has the byte ${data[wrong]} at index ${wrong}`);
    }
    const aligned = data.byteOffset % array.BYTES_PER_ELEMENT === 0 ? data : new Uint8Array(data);
    return { dtype, shape, data: new array(aligned.buffer, aligned.byteOffset, count) } as Tensor;
  }

  /** How many bytes `encode` gives. */
  byteLength(tensor: Tensor): number {
    if (tensor.dtype === 'string') return tensor.data.reduce((sum, text) => sum + 4 + Buffer.byteLength(text), 0);
    return tensor.data.length * (bytesPerElement(tensor.dtype) as number);
  }
}

function encodeStrings(strings: readonly string[], name: string): Uint8Array {
  const bytes = new Uint8Array(strings.reduce((sum, text) => sum + 4 + Buffer.byteLength(text), 0));
  const view = new DataView(bytes.buffer);
  let offset = 0;
  strings.forEach((text, index) => {
    if (!text.isWellFormed()) throw invalid(`tensor '${name}' has a lone surrogate in the string at index ${index}`);
    const { written } = utf8Encoder.encodeInto(text, bytes.subarray(offset + 4));
    view.setUint32(offset, written, true);
    offset += 4 + written;
  });
  return bytes;
}

function decodeStrings(bytes: Uint8Array, count: number, shape: readonly number[], name: string): string[] {
  if (bytes.byteLength < count * 4) {
    throw invalid(
      `tensor '${name}' of dtype string and shape [${shape}] needs at least ${count * 4} bytes, but has ${bytes.byteLength}`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const strings: string[] = [];
  let offset = 0;
  for (let index = 0; index < count; index++) {
    const left = bytes.byteLength - offset - 4;
    const length = left < 0 ? 0 : view.getUint32(offset, true);
    if (length > left) {
      throw invalid(
        `tensor '${name}' of dtype string: the string at index ${index} needs ${length + 4} bytes, but ${left + 4} are left`,
      );
    }
    strings.push(decodeUtf8(bytes.subarray(offset + 4, offset + 4 + length), index, name));
    offset += 4 + length;
  }
  if (offset !== bytes.byteLength) {
    throw invalid(`tensor '${name}' of dtype string needs ${offset} bytes, but has ${bytes.byteLength}`);
  }
  return strings;
}

function decodeUtf8(bytes: Uint8Array, index: number, name: string): string {
  try {
    return utf8Decoder.decode(bytes);
  } catch (cause) {
    throw invalid(`tensor '${name}' of dtype string: the string at index ${index} is not UTF-8`, cause);
  }
}

function invalid(message: string, cause?: unknown): CommError {
  return new CommError('INVALID_ARGUMENT', message, { cause });
}
