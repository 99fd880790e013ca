import { splitlearn } from '#proto';
import { CommError } from '../errors.js';

// ExchangeFrame to and from bytes. Written by hand, because a piece is never gathered before it is put where it belongs;
// what is small and rare inside of it is protobufjs'.

import v1 = splitlearn.comm.v1;

/** gRPC's: a byte that says whether the message is compressed, and its length, big-endian. */
export const PREFIX_BYTES = 5;
/** More than the head of any frame has that carries a piece and nothing rare. */
export const MAX_HEAD_BYTES = 64;
/** The largest frame whose parts may come in any order. Ours put the piece last, and then it is not limited. */
const MAX_GATHERED_BYTES = 4 * 1024 * 1024;

const TAG = {
  call: 0x08,
  begin: 0x12,
  messageBytes: 0x18,
  end: 0x20,
  status: 0x2a,
  cancel: 0x30,
  takenBytes: 0x38,
  connection: 0x42,
  piece: 0x7a,
} as const;

/** A frame without its piece. */
export interface Frame {
  call: number;
  begin?: v1.ICallBegin;
  messageBytes?: number;
  end?: boolean;
  status?: v1.ICallStatus;
  cancel?: number;
  takenBytes?: number;
  connection?: v1.IConnectionFrame;
  /** The bytes of the piece; absent where there is none. */
  pieceBytes?: number;
}

export function varintLength(value: number): number {
  let length = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) length++;
  return length;
}

function writeVarint(target: Uint8Array, offset: number, value: number): number {
  let at = offset;
  let rest = value;
  while (rest >= 0x80) {
    target[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  target[at++] = rest;
  return at;
}

export function encodeBegin(
  session: boolean,
  timeoutMs: number,
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const bounded = Number.isFinite(timeoutMs);
  for (const _ in metadata) return v1.CallBegin.encode({ session, metadata, ...(bounded && { timeoutMs }) }).finish();
  if (session || !bounded) return v1.CallBegin.encode({ session, ...(bounded && { timeoutMs }) }).finish();
  // What every other call sends, without protobufjs: field 2, a double.
  const bytes = new Uint8Array(9);
  bytes[0] = 0x11;
  new DataView(bytes.buffer).setFloat64(1, timeoutMs, true);
  return bytes;
}

/** What {@link writeHead} writes; the messages among it are encoded already. */
export interface Head {
  readonly call: number;
  readonly begin?: Uint8Array | undefined;
  readonly messageBytes?: number | undefined;
  readonly end?: boolean | undefined;
  readonly status?: Uint8Array | undefined;
  readonly cancel?: number | undefined;
  readonly takenBytes?: number | undefined;
  readonly connection?: Uint8Array | undefined;
}

/** Room that {@link writeHead} needs at the most. */
export function headRoom({ begin, status, connection }: Head): number {
  return MAX_HEAD_BYTES + (begin?.length ?? 0) + (status?.length ?? 0) + (connection?.length ?? 0);
}

/**
 * Writes a frame, gRPC's prefix included, up to where its piece begins.
 *
 * @param pieceBytes - The bytes of the piece that follows; -1 for none.
 * @returns where the piece goes.
 */
export function writeHead(target: Uint8Array, offset: number, head: Head, pieceBytes: number): number {
  let at = offset + PREFIX_BYTES;
  if (head.call !== 0) {
    target[at++] = TAG.call;
    at = writeVarint(target, at, head.call);
  }
  if (head.begin) at = writeBytes(target, at, TAG.begin, head.begin);
  if (head.messageBytes !== undefined) {
    target[at++] = TAG.messageBytes;
    at = writeVarint(target, at, head.messageBytes);
  }
  if (head.end) {
    target[at++] = TAG.end;
    target[at++] = 1;
  }
  if (head.status) at = writeBytes(target, at, TAG.status, head.status);
  if (head.cancel !== undefined) {
    target[at++] = TAG.cancel;
    at = writeVarint(target, at, head.cancel);
  }
  if (head.takenBytes !== undefined) {
    target[at++] = TAG.takenBytes;
    at = writeVarint(target, at, head.takenBytes);
  }
  if (head.connection) at = writeBytes(target, at, TAG.connection, head.connection);
  if (pieceBytes >= 0) {
    target[at++] = TAG.piece;
    at = writeVarint(target, at, pieceBytes);
  }
  const length = at - offset - PREFIX_BYTES + Math.max(0, pieceBytes);
  target[offset] = 0;
  target[offset + 1] = length >>> 24;
  target[offset + 2] = length >>> 16;
  target[offset + 3] = length >>> 8;
  target[offset + 4] = length;
  return at;
}

function writeBytes(target: Uint8Array, offset: number, tag: number, bytes: Uint8Array): number {
  target[offset] = tag;
  const at = writeVarint(target, offset + 1, bytes.length);
  target.set(bytes, at);
  return at + bytes.length;
}

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
  /** The start of a frame whose head is not complete. */
  #carry: Uint8Array = EMPTY;
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
    return this.#frame !== undefined || this.#carry.length > 0;
  }

  /** @throws CommError `INTERNAL` for what is no frame: the stream is of no use any more. */
  push(chunk: Uint8Array): void {
    let bytes = chunk;
    if (this.#carry.length > 0) {
      bytes = Buffer.concat([this.#carry, chunk]);
      this.#carry = EMPTY;
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
        // A copy: the chunk is node's, and much larger.
        this.#carry = Uint8Array.prototype.slice.call(bytes, at);
        return;
      }
      at = next;
    }
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
    const length =
      (bytes[start + 1] as number) * 0x1000000 +
      (((bytes[start + 2] as number) << 16) | ((bytes[start + 3] as number) << 8) | (bytes[start + 4] as number));
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
