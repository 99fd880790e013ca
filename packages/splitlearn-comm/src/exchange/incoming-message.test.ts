import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { announcedBytes, IncomingMessage } from './incoming-message.js';

/** Fills a message in pieces of these sizes. */
function fill(message: IncomingMessage, content: Buffer, sizes: readonly number[]): void {
  let at = 0;
  for (const size of [...sizes, content.byteLength]) {
    const piece = content.subarray(at, at + size);
    if (at + piece.byteLength < content.byteLength) expect(message.complete()).toBe(undefined);
    expect(message.takes(piece.byteLength)).toBe(true);
    expect(message.takes(content.byteLength - at + 1)).toBe(false);
    message.append(piece);
    at += piece.byteLength;
  }
}

const content = fc
  .tuple(fc.oneof(fc.nat(40), fc.integer({ min: 4_000, max: 4_200 }), fc.nat(70_000)), fc.nat(255))
  .map(([length, value]) => Buffer.alloc(length, value));

describe('IncomingMessage', () => {
  it('is complete when all pieces have come, and is theirs in order', () => {
    fc.assert(
      fc.property(content, fc.array(fc.nat(9_000), { maxLength: 6 }), (bytes, sizes) => {
        const message = new IncomingMessage(bytes.byteLength);
        expect(message.byteLength).toBe(bytes.byteLength);
        fill(message, bytes, sizes);
        expect(Buffer.compare(message.complete() as Uint8Array, bytes)).toBe(0);
      }),
    );
  });

  it('shares no byte with another one, and begins where any element may', () => {
    fc.assert(
      fc.property(fc.array(content, { minLength: 2, maxLength: 40 }), (contents) => {
        const messages = contents.map((bytes) => new IncomingMessage(bytes.byteLength));
        for (const [index, bytes] of contents.entries()) messages[index]?.append(bytes);
        for (const [index, bytes] of contents.entries()) {
          const complete = messages[index]?.complete() as Uint8Array;
          expect(Buffer.compare(complete, bytes)).toBe(0);
          expect(complete.byteOffset % 8).toBe(0);
        }
      }),
    );
  });

  it('owns its memory where it is large', () => {
    const message = new IncomingMessage(100_000);
    message.append(Buffer.alloc(100_000));
    expect(message.complete()?.buffer.byteLength).toBe(100_000);
  });

  it('of no bytes is complete at once', () => {
    expect(new IncomingMessage(0).complete()).toHaveLength(0);
  });
});

it('announcedBytes is what a frame says of its message', () => {
  expect(announcedBytes({ call: 1, pieceBytes: 5 })).toBe(5);
  expect(announcedBytes({ call: 1, pieceBytes: 5, messageBytes: 9 })).toBe(9);
  // One that contradicts itself.
  expect(announcedBytes({ call: 1, pieceBytes: 5, messageBytes: 2 })).toBe(5);
});
