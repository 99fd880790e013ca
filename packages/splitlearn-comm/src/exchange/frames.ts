import { splitlearn } from '#proto';

// ExchangeFrame to bytes. Written by hand, up to where the piece goes; what is small and rare inside of it is protobufjs'.

import v1 = splitlearn.comm.v1;

/** gRPC's: a byte that says whether the message is compressed, and its length, big-endian. */
export const PREFIX_BYTES = 5;
/** More than the head of any frame has that carries a piece and nothing rare. */
export const MAX_HEAD_BYTES = 64;
/** The tags of ExchangeFrame's fields. */
export const TAG = {
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
