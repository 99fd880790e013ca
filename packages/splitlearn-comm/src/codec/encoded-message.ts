import type { OutgoingTensor } from './outgoing-tensor.js';
import { textFieldByteLength, writeTextField } from './protobuf.js';
import { MODEL_TAG, REQUEST_ID_TAG } from './wire-tags.js';

/** A message whose sizes are known and that is yet to be written. */
export interface EncodedMessage {
  readonly byteLength: number;
  /**
   * Writes the message, straight into where it is sent from. For the data of its tensors to be aligned there, the offset
   * modulo 8 has to be the `base` that the message was encoded for.
   *
   * @throws CommError `FAILED_PRECONDITION` (reason `TENSOR_MOVED`) when a tensor has been moved to another thread since.
   */
  writeTo(target: Uint8Array, offset: number): void;
  /**
   * The message as pieces in order, to be sent later. Large memory that is movable (see `markMovable`) is referenced, and
   * must stay as it is until it has been sent; all else is copied now, so the caller may change its tensors afterwards.
   *
   * @param allocate - Where the copies go. Default: fresh memory.
   * @throws CommError as `writeTo`.
   */
  toParts(allocate?: (bytes: number) => Uint8Array): Uint8Array[];
}

/** The fields of a message that come behind its tensors. */
export interface MessageTail {
  readonly byteLength: number;
  write(target: Uint8Array, position: number): void;
}

/** Less is copied with the rest: that takes no longer than another piece does on its way. */
const MIN_REFERENCED_BYTES = 16 * 1024;

/** A message of tensors: what ComputeRequest and ComputeResponse have in common, and a tail that differs. */
export class TensorMessage implements EncodedMessage {
  readonly byteLength: number;
  readonly #requestId: string;
  readonly #requestIdBytes: number;
  readonly #model: string;
  readonly #modelBytes: number;
  readonly #tensors: readonly OutgoingTensor[];
  readonly #tail: MessageTail;

  constructor(
    requestId: string,
    requestIdBytes: number,
    model: string,
    modelBytes: number,
    tensors: readonly OutgoingTensor[],
    tail: MessageTail,
  ) {
    this.#requestId = requestId;
    this.#requestIdBytes = requestIdBytes;
    this.#model = model;
    this.#modelBytes = modelBytes;
    this.#tensors = tensors;
    this.#tail = tail;
    let byteLength = textFieldByteLength(requestIdBytes) + textFieldByteLength(modelBytes) + tail.byteLength;
    for (const tensor of tensors) byteLength += tensor.byteLength;
    this.byteLength = byteLength;
  }

  writeTo(target: Uint8Array, offset: number): void {
    let at = this.#writeHead(target, offset);
    for (const tensor of this.#tensors) {
      at = tensor.writeHead(target, at);
      target.set(tensor.data, at);
      at += tensor.dataByteLength;
    }
    this.#tail.write(target, at);
  }

  toParts(allocate: (bytes: number) => Uint8Array = Buffer.allocUnsafe): Uint8Array[] {
    let copiedBytes = this.byteLength;
    for (const tensor of this.#tensors) if (isReferenced(tensor)) copiedBytes -= tensor.dataByteLength;
    // Out of Node's pool, by default, where they are small: they are only ever read.
    const copied = allocate(copiedBytes);
    if (copiedBytes === this.byteLength) {
      this.writeTo(copied, 0);
      return [copied];
    }
    const parts: Uint8Array[] = [];
    let cut = 0;
    let at = this.#writeHead(copied, 0);
    for (const tensor of this.#tensors) {
      at = tensor.writeHead(copied, at);
      if (isReferenced(tensor)) {
        parts.push(copied.subarray(cut, at), tensor.data);
        cut = at;
      } else {
        copied.set(tensor.data, at);
        at += tensor.dataByteLength;
      }
    }
    this.#tail.write(copied, at);
    if (cut < copiedBytes) parts.push(copied.subarray(cut));
    return parts;
  }

  #writeHead(target: Uint8Array, offset: number): number {
    const at = writeTextField(target, offset, REQUEST_ID_TAG, this.#requestId, this.#requestIdBytes);
    return writeTextField(target, at, MODEL_TAG, this.#model, this.#modelBytes);
  }
}

/** The bytes of a message in one piece, in memory of their own. */
export function toBytes(message: EncodedMessage): Uint8Array {
  // Not filled with zeros first, which for megabytes takes longer than writing them: all of it is written.
  const bytes = Buffer.allocUnsafeSlow(message.byteLength);
  message.writeTo(bytes, 0);
  return bytes;
}

function isReferenced(tensor: OutgoingTensor): boolean {
  return tensor.isSettled && tensor.dataByteLength >= MIN_REFERENCED_BYTES;
}
