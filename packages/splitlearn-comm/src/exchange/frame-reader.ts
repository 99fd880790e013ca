import { splitlearn } from '#proto';
import { CommError } from '../errors.js';
import { type Frame, PREFIX_BYTES, TAG } from './frames.js';

// Bytes to ExchangeFrame. Written by hand, because a piece is never gathered before it is put where it belongs.

import v1 = splitlearn.comm.v1;

/** The largest frame whose parts may come in any order. Ours put the piece last, and then it is not limited. */
const MAX_GATHERED_BYTES = 1024 * 1024;
/** As long as most heads are at the most. */
const SHORT_HEAD_BYTES = 1024;

/** Who reads frames. `begin` is told of a frame, `bytes` of its piece as it comes, `finish` that the frame is over. */
export interface FrameHandler {
  begin(frame: Frame): void;
  bytes(bytes: Uint8Array): void;
  finish(frame: Frame): void;
}

const EMPTY = new Uint8Array(0);

/** Reads frames from a stream of bytes that is cut anywhere. */
export class FrameReader {
  readonly #handler: FrameHandler;
  /** The start of a frame whose head is not complete, and how many bytes of it there are. */
  #carry: Uint8Array = EMPTY;
  #carried = 0;
  /** So many there have to be before it is worth looking again. */
  #awaited = 0;
  /** The frame whose piece is being read, and how much of it is still to come. */
  #frame: Frame | undefined;
  #pieceLeft = 0;
  #left = 0;

  constructor(handler: FrameHandler) {
    this.#handler = handler;
  }

  /** While a handler runs: how many bytes of this chunk come after what it is told of. */
  get left(): number {
    return this.#left;
  }

  /** Whether a frame has come in part. */
  get midway(): boolean {
    return this.#frame !== undefined || this.#carried > 0;
  }

  /** @throws CommError `INTERNAL` for what is no frame: the stream is of no use any more. */
  push(chunk: Uint8Array): void {
    let bytes = chunk;
    if (this.#carried > 0) {
      this.#carryMore(chunk);
      if (this.#carried < this.#awaited) return;
      bytes = this.#carry.subarray(0, this.#carried);
      this.#carried = 0;
    }
    let at = 0;
    while (at < bytes.length) {
      if (this.#frame) {
        const taken = Math.min(this.#pieceLeft, bytes.length - at);
        this.#left = bytes.length - at - taken;
        this.#handler.bytes(bytes.subarray(at, at + taken));
        at += taken;
        this.#pieceLeft -= taken;
        if (this.#pieceLeft === 0) this.#finish();
        continue;
      }
      const next = this.#head(bytes, at);
      if (next < 0) {
        this.#carryRest(bytes, at);
        return;
      }
      at = next;
    }
  }

  /** Keeps what there is of a frame, in a copy: the chunk is Node's, and much larger. */
  #carryRest(bytes: Uint8Array, at: number): void {
    const rest = bytes.subarray(at);
    if (bytes.buffer === this.#carry.buffer || rest.length > this.#carry.length) {
      this.#carry = new Uint8Array(2 * rest.length);
    }
    this.#carry.set(rest);
    this.#carried = rest.length;
    // A long head is looked at again when there is twice as much, or all of it: else one that comes byte by byte would be
    // read from its start for each of them.
    const whole = rest.length < PREFIX_BYTES ? PREFIX_BYTES : PREFIX_BYTES + frameLength(rest, 0);
    this.#awaited = rest.length < SHORT_HEAD_BYTES ? 0 : Math.min(whole, 2 * rest.length);
  }

  #carryMore(chunk: Uint8Array): void {
    const length = this.#carried + chunk.length;
    if (length > this.#carry.length) {
      const larger = new Uint8Array(2 * length);
      larger.set(this.#carry.subarray(0, this.#carried));
      this.#carry = larger;
    }
    this.#carry.set(chunk, this.#carried);
    this.#carried = length;
  }

  #finish(): void {
    const frame = this.#frame as Frame;
    this.#frame = undefined;
    this.#handler.finish(frame);
  }

  /** Reads a frame up to its piece, and with it where the piece is not last; -1 when more bytes are needed. */
  #head(bytes: Uint8Array, start: number): number {
    if (bytes.length - start < PREFIX_BYTES) return -1;
    if (bytes[start] !== 0) throw malformed('a compressed frame');
    const length = frameLength(bytes, start);
    const from = start + PREFIX_BYTES;
    const end = from + length;
    const cursor = new Cursor(bytes, from, end);
    const frame: Frame = { call: 0 };
    let piece: Uint8Array | undefined;
    while (cursor.at < end) {
      const tag = cursor.varint();
      if (cursor.short) break;
      if (tag === TAG.piece) {
        const pieceBytes = cursor.varint();
        if (cursor.short) break;
        if (cursor.at + pieceBytes > end) throw malformed('a piece beyond its frame');
        frame.pieceBytes = pieceBytes;
        if (cursor.at + pieceBytes === end && !piece) {
          this.#left = bytes.length - cursor.at;
          this.#handler.begin(frame);
          this.#frame = frame;
          this.#pieceLeft = pieceBytes;
          if (pieceBytes === 0) this.#finish();
          return cursor.at;
        }
        piece = cursor.bytes(pieceBytes);
      } else readField(frame, tag, cursor);
      if (cursor.short) break;
    }
    if (cursor.short) {
      if (length > MAX_GATHERED_BYTES && bytes.length - start > MAX_GATHERED_BYTES)
        throw malformed('an oversized frame');
      return -1;
    }
    this.#left = bytes.length - end;
    this.#handler.begin(frame);
    if (piece && piece.length > 0) this.#handler.bytes(piece);
    this.#handler.finish(frame);
    return end;
  }
}

function frameLength(bytes: Uint8Array, start: number): number {
  return new DataView(bytes.buffer, bytes.byteOffset + start + 1, 4).getUint32(0);
}

function readField(frame: Frame, tag: number, cursor: Cursor): void {
  switch (tag) {
    case TAG.call:
      frame.call = cursor.varint();
      return;
    case TAG.messageBytes:
      frame.messageBytes = cursor.varint();
      return;
    case TAG.end:
      frame.end = cursor.varint() !== 0;
      return;
    case TAG.cancel:
      frame.cancel = cursor.varint();
      return;
    case TAG.takenBytes:
      frame.takenBytes = cursor.varint();
      return;
    case TAG.begin:
      frame.begin = { ...frame.begin, ...cursor.message((bytes) => v1.CallBegin.decode(bytes)) };
      return;
    case TAG.status:
      frame.status = { ...frame.status, ...cursor.message((bytes) => v1.CallStatus.decode(bytes)) };
      return;
    case TAG.connection:
      frame.connection = { ...frame.connection, ...cursor.message((bytes) => v1.ConnectionFrame.decode(bytes)) };
      return;
    default:
      cursor.skip(tag);
  }
}

/** Reads protobuf's primitives from bytes of which the end may not have come yet. */
class Cursor {
  /** More bytes are needed; what was read since is of no meaning. */
  short = false;
  at: number;
  readonly #bytes: Uint8Array;
  readonly #end: number;

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.#bytes = bytes;
    this.at = at;
    this.#end = end;
  }

  varint(): number {
    let value = 0;
    let scale = 1;
    for (let count = 0; count < 10; count++) {
      if (this.at >= this.#end) throw malformed('a number beyond its frame');
      if (this.at >= this.#bytes.length) {
        this.short = true;
        this.at = this.#end;
        return 0;
      }
      const byte = this.#bytes[this.at++] as number;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        if (!Number.isSafeInteger(value)) throw malformed('a number beyond 2^53');
        return value;
      }
      scale *= 0x80;
    }
    throw malformed('an endless number');
  }

  bytes(length: number): Uint8Array {
    if (this.at + length > this.#end) throw malformed('a field beyond its frame');
    const from = this.at;
    this.at += length;
    if (this.at > this.#bytes.length) this.short = true;
    return this.#bytes.subarray(from, this.at);
  }

  message<T extends object>(decode: (bytes: Uint8Array) => T): T | undefined {
    const bytes = this.bytes(this.varint());
    if (this.short) return undefined;
    try {
      return decode(bytes);
    } catch (cause) {
      throw malformed((cause as Error).message);
    }
  }

  skip(tag: number): void {
    switch (tag & 7) {
      case 0:
        this.#skipVarint();
        return;
      case 1:
        this.bytes(8);
        return;
      case 2:
        this.bytes(this.varint());
        return;
      case 5:
        this.bytes(4);
        return;
      default:
        throw malformed(`a field of wire type ${tag & 7}`);
    }
  }

  /** Of any size: a later version's number may be one that JavaScript has not. */
  #skipVarint(): void {
    for (let count = 0; count < 10; count++) {
      const [byte = 0] = this.bytes(1);
      if (this.short || byte < 0x80) return;
    }
    throw malformed('an endless number');
  }
}

function malformed(what: string): CommError {
  return new CommError('INTERNAL', `the peer's Exchange is malformed: ${what}`);
}
