import { CommError } from '../errors.js';
import { assertTensor, type Tensor, type Tensors } from '../tensor.js';
import { isMovable } from '../transfer.js';
import { textFieldByteLength, varintByteLength, writeTextField, writeVarint, writeWideVarint } from './protobuf.js';
import { TensorCodec } from './tensor-codec.js';
import { dtypeToWire } from './wire-enums.js';
import { DATA_TAG, DTYPE_TAG, ENCODING_TAG, NAME_TAG, PACKED_SHAPE_TAG, PADDING_TAG, TENSOR_TAG } from './wire-tags.js';

/** A tensor's elements, encoded. */
export interface WireData {
  /** A number of the enum `Encoding` in compute.proto. */
  readonly encoding: number;
  /** A view on the tensor's own memory, or else on memory that does not change any more. */
  readonly data: Uint8Array;
}

/** Encodes a tensor's elements. */
export type EncodeTensor = (tensor: Tensor, name: string) => WireData;

/** Where `data` begins is a multiple of this, as the largest elements need it. */
const ALIGNMENT = 8;

const codec = new TensorCodec();

/** A tensor on its way into a message: all sizes are known, nothing is written. */
export class OutgoingTensor {
  /** The elements as they will be on the wire. */
  readonly data: Uint8Array;
  /** How many there are. Kept, because memory that moves to another thread takes the length of views on it along. */
  readonly dataByteLength: number;
  /** Whether the elements can be sent later from where they lie, as nobody else writes there. */
  readonly isSettled: boolean;
  /** All of the field in its message, with tag and length. */
  readonly byteLength: number;
  readonly #name: string;
  readonly #nameBytes: number;
  readonly #dtype: number;
  readonly #shape: readonly number[];
  readonly #shapeBytes: number;
  readonly #encoding: number;
  readonly #contentBytes: number;
  /** Of the varint with the length of the content. */
  readonly #lengthBytes: number;
  /** Of the field `padding` as a whole. */
  readonly #paddingBytes: number;

  /** @param position - How far from the beginning of its buffer the field will be written, modulo 8. */
  constructor(tensor: Tensor, name: string, position: number, encode: EncodeTensor) {
    const { encoding, data } = encode(tensor, name);
    this.data = data;
    this.dataByteLength = data.byteLength;
    // Of strings, and of anything but the raw encoding, the bytes have just been made.
    const isCopy = tensor.dtype === 'string' || tensor.data.buffer !== data.buffer;
    this.isSettled = isCopy || isMovable(data.buffer);
    this.#name = name;
    this.#nameBytes = textByteLength(name, 'a tensor name');
    this.#dtype = dtypeToWire(tensor.dtype);
    // A copy: the sizes must still be true when it is written.
    this.#shape = tensor.shape.slice();
    this.#encoding = encoding;
    let shapeBytes = 0;
    for (const size of this.#shape) shapeBytes += varintByteLength(size);
    this.#shapeBytes = shapeBytes;

    let headBytes = textFieldByteLength(this.#nameBytes) + 2 + textFieldByteLength(shapeBytes);
    if (encoding !== 0) headBytes += 1 + varintByteLength(encoding);
    if (this.dataByteLength > 0) headBytes += 1 + varintByteLength(this.dataByteLength);
    let contentBytes = headBytes + this.dataByteLength;
    let lengthBytes = varintByteLength(contentBytes);
    let paddingBytes = this.dataByteLength === 0 ? 0 : paddingFor(position + 1 + lengthBytes + headBytes);
    if (varintByteLength(contentBytes + paddingBytes) > lengthBytes) {
      // The padding makes the length in front of it longer, and what comes after needs another padding. Where that one is
      // so much shorter that the length would have fitted before, the length is written wider than it need be.
      lengthBytes++;
      paddingBytes = paddingFor(position + 1 + lengthBytes + headBytes);
    }
    contentBytes += paddingBytes;
    this.#paddingBytes = paddingBytes;
    this.#lengthBytes = lengthBytes;
    this.#contentBytes = contentBytes;
    this.byteLength = 1 + lengthBytes + contentBytes;
  }

  /** Writes all that comes before the data; gives the position behind it. */
  writeHead(target: Uint8Array, position: number): number {
    if (this.data.byteLength !== this.dataByteLength) throw moved(this.#name);
    let at = position;
    target[at++] = TENSOR_TAG;
    at = writeWideVarint(target, at, this.#contentBytes, this.#lengthBytes);
    at = writeTextField(target, at, NAME_TAG, this.#name, this.#nameBytes);
    target[at++] = DTYPE_TAG;
    target[at++] = this.#dtype;
    if (this.#shapeBytes > 0) {
      target[at++] = PACKED_SHAPE_TAG;
      at = writeVarint(target, at, this.#shapeBytes);
      for (const size of this.#shape) at = writeVarint(target, at, size);
    }
    if (this.#encoding !== 0) {
      target[at++] = ENCODING_TAG;
      at = writeVarint(target, at, this.#encoding);
    }
    if (this.#paddingBytes > 0) {
      target[at++] = PADDING_TAG;
      const zeros = this.#paddingBytes - 2;
      target[at++] = zeros;
      // The target may have been used before.
      for (let index = 0; index < zeros; index++) target[at++] = 0;
    }
    if (this.dataByteLength > 0) {
      target[at++] = DATA_TAG;
      at = writeVarint(target, at, this.dataByteLength);
    }
    return at;
  }
}

/**
 * The sizes of tensors in a message.
 *
 * @param position - How far from the beginning of its buffer the first of them will be written.
 * @throws CommError `INVALID_ARGUMENT` when there is one that is no valid tensor, before anything is encoded.
 */
export function prepareTensors(
  tensors: Tensors | undefined,
  position: number,
  encode: EncodeTensor = encodeRaw,
): OutgoingTensor[] {
  if (typeof tensors !== 'object' || tensors === null) {
    throw invalid(`${tensors} is given where tensors by name are needed, as in { input: tensor([1, 2, 3]) }`);
  }
  const names = Object.keys(tensors);
  for (const name of names) assertTensor(tensors[name] as Tensor, name);
  const prepared: OutgoingTensor[] = [];
  let at = position;
  for (const name of names) {
    const tensor = new OutgoingTensor(tensors[name] as Tensor, name, at, encode);
    prepared.push(tensor);
    at += tensor.byteLength;
  }
  return prepared;
}

/**
 * The bytes of text as UTF-8.
 *
 * @throws CommError `INVALID_ARGUMENT` for what has no UTF-8 form: the receiver would refuse all of the message.
 */
export function textByteLength(text: string, what: string): number {
  if (typeof text !== 'string') throw invalid(`${what} must be a string, and is ${typeof text} ${String(text)}`);
  const bytes = Buffer.byteLength(text);
  if (bytes !== text.length && !text.isWellFormed()) throw invalid(`${what} has a lone surrogate: '${text}'`);
  return bytes;
}

/** The bytes of a field `padding` that takes what follows it from a position to one that is aligned. */
function paddingFor(position: number): number {
  const missing = -position & (ALIGNMENT - 1);
  // A field has two bytes at least.
  return missing === 1 ? missing + ALIGNMENT : missing;
}

function encodeRaw(tensor: Tensor, name: string): WireData {
  if (tensor.dtype === 'string') return { encoding: 0, data: codec.encode(tensor, name).data };
  const { buffer, byteOffset, byteLength } = tensor.data;
  return { encoding: 0, data: new Uint8Array(buffer, byteOffset, byteLength) };
}

function moved(name: string): CommError {
  return new CommError(
    'FAILED_PRECONDITION',
    `tensor '${name}' was handed to another thread, which took its memory along, before it could be sent`,
    { reason: 'TENSOR_MOVED' },
  );
}

function invalid(message: string): CommError {
  return new CommError('INVALID_ARGUMENT', message);
}
