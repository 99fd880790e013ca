import { CommError } from '../errors.js';
import { assertTensor, bytesPerElement, elementCount, type Tensor, type Tensors } from '../tensor.js';
import { decodeFrom, decodeFromAsync, encodeAs, encodeAsAsync, OFF_THREAD_BYTES } from './compression.js';
import { isCompression, type TensorEncoding } from './encodings/tensor-encoding.js';
import type { DecodeTensor, EncodeTensor, WireData } from './wire.js';
import { encodingFromWire, encodingToWire } from './wire-enums.js';

// The tensors of a message in encodings other than raw: what compresses much of it does so in another thread.

/** Encodes tensors ahead of their message, which refuses what is no tensor: it knows who is to blame. */
export async function encodeAhead(
  tensors: Tensors,
  choose: (tensor: Tensor) => TensorEncoding,
): Promise<EncodeTensor | undefined> {
  const encoded = new Map<string, WireData>();
  for (const [name, tensor] of Object.entries(tensors ?? {})) {
    if (!isValid(tensor, name)) return undefined;
    const encoding = choose(tensor);
    if (encoding === 'raw') continue;
    const { encoding: used, data } = await encodeAsAsync(encoding, tensor, name);
    encoded.set(name, { encoding: encodingToWire(used), data });
  }
  if (encoded.size === 0) return undefined;
  return (tensor, name) => encoded.get(name) ?? { encoding: 0, data: encodeAs('raw', tensor, name).data };
}

/** Decodes the tensors of one message, to no more than `maxBytes` together. */
export function decodeUpTo(maxBytes: number): DecodeTensor {
  let leftBytes = maxBytes;
  return (number, encoded, name) => {
    const encoding = encodingFromWire(number);
    if (!encoding) throw new CommError('INVALID_ARGUMENT', `tensor '${name}' has the unknown encoding ${number}`);
    const limit = leftBytes;
    const elementBytes = bytesPerElement(encoded.dtype);
    // Only strings do not say how large they are.
    if (elementBytes === undefined || !isCompression(encoding)) {
      const data = decodeFrom(encoding, encoded, limit, name);
      leftBytes -= data.byteLength;
      return data;
    }
    const bytes = elementCount(encoded.shape, name) * elementBytes;
    leftBytes -= bytes;
    // What is too large is refused at once, and not when the rest of the message has been read.
    return bytes < OFF_THREAD_BYTES || bytes > limit
      ? decodeFrom(encoding, encoded, limit, name)
      : decodeFromAsync(encoding, encoded, limit, name);
  };
}

function isValid(tensor: Tensor, name: string): boolean {
  try {
    assertTensor(tensor, name);
    return tensor.dtype !== 'string' || tensor.data.every((text) => text.isWellFormed());
  } catch {
    return false;
  }
}
