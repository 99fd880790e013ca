import { SHARED_MESSAGE_BYTES } from '../codec/wire.js';
import type { Frame } from './frames.js';

const SLAB_BYTES = 64 * 1024;
let slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
let slabUsed = 0;

/** Memory for a message. A large one owns it, because its tensors are views on it that may move away. */
function allocate(byteLength: number): Uint8Array {
  if (byteLength > SHARED_MESSAGE_BYTES) return Buffer.allocUnsafeSlow(byteLength);
  if (slabUsed + byteLength > SLAB_BYTES) {
    slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    slabUsed = 0;
  }
  const bytes = new Uint8Array(slab.buffer, slabUsed, byteLength);
  // The next one is aligned too.
  slabUsed += (byteLength + 7) & ~7;
  return bytes;
}

/** A message that arrives in pieces. */
export class IncomingMessage {
  readonly #bytes: Uint8Array;
  #filled = 0;

  /** @param byteLength - Checked against the limits by the caller: it is allocated here. */
  constructor(byteLength: number) {
    this.#bytes = allocate(byteLength);
  }

  get byteLength(): number {
    return this.#bytes.length;
  }

  /** How much of it has come. */
  get filledBytes(): number {
    return this.#filled;
  }

  /** Whether a piece of that size has room. */
  takes(pieceBytes: number): boolean {
    return this.#filled + pieceBytes <= this.#bytes.length;
  }

  append(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }

  /** The message, where it is complete. */
  complete(): Uint8Array | undefined {
    return this.#filled === this.#bytes.length ? this.#bytes : undefined;
  }
}

/** The bytes of the message that a frame begins. */
export function announcedBytes({ messageBytes, pieceBytes = 0 }: Frame): number {
  return Math.max(messageBytes ?? 0, pieceBytes);
}
