import { CommError } from '../errors.js';
import type { Frame } from './frames.js';

/** Below this a zeroed array is cheaper than one that is not. */
const SMALL_BYTES = 4096;

/** A message that arrives in pieces. It owns its memory, because its tensors are views on it that may move away. */
export class IncomingMessage {
  readonly #bytes: Uint8Array;
  #filled = 0;

  /** @param byteLength - Checked against the limits by the caller: it is allocated here. */
  constructor(byteLength: number) {
    this.#bytes = byteLength < SMALL_BYTES ? new Uint8Array(byteLength) : Buffer.allocUnsafeSlow(byteLength);
  }

  get byteLength(): number {
    return this.#bytes.length;
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

export function brokenMessage(): CommError {
  return new CommError('INTERNAL', "the peer's Exchange is malformed: a message has more bytes than were announced");
}
