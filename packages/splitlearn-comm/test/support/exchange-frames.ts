import { splitlearn } from '#proto';

import v1 = splitlearn.comm.v1;

// Frames of an Exchange as protobufjs has them: written without the code under test.

/** A frame as gRPC has it on the wire, behind its prefix. */
export function prefixed(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.byteLength, 1);
  return Buffer.concat([prefix, message]);
}

export function frameBytes(frame: v1.IExchangeFrame): Buffer {
  return prefixed(v1.ExchangeFrame.encode(frame).finish());
}

/** The messages of a gRPC stream; it must end with one of them. */
export function splitMessages(bytes: Buffer): Buffer[] {
  const messages: Buffer[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    if (bytes[at] !== 0) throw new Error(`no message begins at ${at}`);
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    if (end > bytes.byteLength) throw new Error(`the message at ${at} is cut off`);
    messages.push(bytes.subarray(at + 5, end));
    at = end;
  }
  return messages;
}

/** A frame without what is not set, its numbers as numbers, and its piece as text, which is compared at once. */
export type PlainFrame = Record<string, unknown> & { call?: number; piece?: string };

export function plainFrame(message: Uint8Array): PlainFrame {
  const frame = v1.ExchangeFrame.toObject(v1.ExchangeFrame.decode(message), { longs: Number });
  return frame.piece ? { ...frame, piece: Buffer.from(frame.piece).toString('latin1') } : frame;
}

export function plainFrames(bytes: Buffer): PlainFrame[] {
  return splitMessages(bytes).map(plainFrame);
}
