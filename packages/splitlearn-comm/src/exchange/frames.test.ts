import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { text } from '../../test/support/arbitraries.js';
import { type PlainFrame, plainFrame, prefixed, splitMessages } from '../../test/support/exchange-frames.js';
import { varint } from '../../test/support/plain-wire.js';
import { CommError } from '../errors.js';
import { FrameReader } from './frame-reader.js';
import { encodeBegin, type Frame, type Head, headRoom, varintLength, writeHead } from './frames.js';

import v1 = splitlearn.comm.v1;

/** Reads chunks, and gives the frames as protobufjs would. */
function read(chunks: readonly Uint8Array[]): { frames: PlainFrame[]; reader: FrameReader } {
  const frames: PlainFrame[] = [];
  let pieces: Buffer[] = [];
  let open: Frame | undefined;
  const reader = new FrameReader({
    begin(frame) {
      expect(open).toBe(undefined);
      open = frame;
      pieces = [];
    },
    bytes(bytes) {
      expect(open?.pieceBytes).toBeGreaterThan(0);
      expect(bytes.byteLength).toBeGreaterThan(0);
      pieces.push(Buffer.from(bytes));
    },
    finish(frame) {
      expect(frame).toBe(open);
      open = undefined;
      const piece = Buffer.concat(pieces);
      expect(piece.byteLength).toBe(frame.pieceBytes ?? 0);
      frames.push(plain(frame, piece));
    },
  });
  for (const chunk of chunks) reader.push(chunk);
  return { frames, reader };
}

function plain({ pieceBytes, ...frame }: Frame, piece: Buffer): PlainFrame {
  const { begin, status, connection } = frame;
  const whole = v1.ExchangeFrame.fromObject({
    ...frame,
    ...(begin && { begin: v1.CallBegin.fromObject(begin) }),
    ...(status && { status: v1.CallStatus.fromObject(status) }),
    ...(connection && { connection: v1.ConnectionFrame.fromObject(connection) }),
    ...(pieceBytes !== undefined && { piece }),
  });
  return plainFrame(v1.ExchangeFrame.encode(whole).finish());
}

/** Cuts bytes where it is told to. */
function cut(bytes: Buffer, lengths: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  let at = 0;
  for (const length of lengths) {
    chunks.push(bytes.subarray(at, at + length));
    at += length;
  }
  return [...chunks, bytes.subarray(at)];
}

const uint32 = fc.oneof(fc.nat(300), fc.integer({ min: 0, max: 2 ** 32 - 1 }));
const uint53 = fc.oneof(fc.nat(300), fc.maxSafeNat());
const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const double = fc.double({ noNaN: true });

const begin = fc.record(
  {
    session: fc.boolean(),
    timeoutMs: double,
    metadata: fc.dictionary(fc.stringMatching(/^[a-z-]{1,8}$/), text, { maxKeys: 3 }),
  },
  { requiredKeys: [] },
);
const callStatus = fc.record(
  { code: fc.nat(16), message: text, reason: fc.stringMatching(/^[A-Z_]{0,8}$/), retryAfterMs: double },
  { requiredKeys: [] },
);
const connection = fc.record(
  { draining: fc.boolean(), ping: fc.boolean(), pong: fc.boolean(), bulkRight: fc.nat(2), receivedBytes: uint53 },
  { requiredKeys: [] },
);

/** A field of a frame, as its bytes. */
const field = (number: number, wireType: number, ...content: Uint8Array[]) =>
  Buffer.concat([varint(number * 8 + wireType), ...content]);
const bytesField = (number: number, content: Uint8Array) => field(number, 2, varint(content.byteLength), content);

const someBytes = fc.oneof(
  fc.uint8Array({ maxLength: 20 }),
  fc.integer({ min: 100, max: 70_000 }).map((length) => new Uint8Array(length).map((_, index) => index * 7)),
);
const knownField: fc.Arbitrary<Buffer> = fc.oneof(
  uint32.map((value) => field(1, 0, varint(value))),
  begin.map((value) => bytesField(2, v1.CallBegin.encode(value).finish())),
  uint53.map((value) => field(3, 0, varint(value))),
  fc.nat(1).map((value) => field(4, 0, varint(value))),
  callStatus.map((value) => bytesField(5, v1.CallStatus.encode(value).finish())),
  uint32.map((value) => field(6, 0, varint(value))),
  uint53.map((value) => field(7, 0, varint(value))),
  connection.map((value) => bytesField(8, v1.ConnectionFrame.encode(value).finish())),
  { weight: 3, arbitrary: someBytes.map((value) => bytesField(15, value)) },
);
/** What a later version might send: any wire type, also under a number that is known with another. */
const unknownField: fc.Arbitrary<Buffer> = fc
  .tuple(fc.oneof(fc.integer({ min: 16, max: 2 ** 29 - 1 }), fc.integer({ min: 9, max: 14 })), someBytes, uint53)
  .chain(([number, bytes, value]) =>
    fc.constantFrom(
      field(number, 0, varint(value)),
      field(number, 0, Buffer.from('ffffffffffffffffff01', 'hex')),
      field(number, 1, new Uint8Array(8).fill(7)),
      field(number, 5, new Uint8Array(4).fill(7)),
      bytesField(number, bytes),
      field(1, 5, new Uint8Array(4).fill(7)),
      field(15, 1, new Uint8Array(8).fill(7)),
      bytesField(3, bytes),
    ),
  );
const message = fc
  .array(fc.oneof({ weight: 3, arbitrary: knownField }, { weight: 1, arbitrary: unknownField }), { maxLength: 6 })
  // No writer splits a message among several fields, which would have to be merged map by map.
  .map((fields) =>
    fields.filter((one, index) => one[0] !== 0x12 || fields.findIndex(([tag]) => tag === 0x12) === index),
  )
  .map((fields) => Buffer.concat(fields));
const messages = fc.array(message, { maxLength: 6 });

describe('FrameReader', () => {
  it('reads what protobufjs reads: fields in any order, repeated and unknown ones, cut anywhere', {
    timeout: 60_000,
  }, () => {
    const cuts = fc.array(fc.oneof(fc.nat(12), fc.nat(60_000)), { maxLength: 40 });
    fc.assert(
      fc.property(messages, cuts, (sent, lengths) => {
        const { frames, reader } = read(cut(Buffer.concat(sent.map(prefixed)), lengths));
        expect(frames).toEqual(sent.map(plainFrame));
        expect(reader.midway).toBe(false);
      }),
      { numRuns: 300 },
    );
  });

  it('reads what comes byte by byte', () => {
    const short = fc.array(message, { maxLength: 3 }).filter((sent) => Buffer.concat(sent).byteLength < 2_000);
    fc.assert(
      fc.property(short, (sent) => {
        const bytes = Buffer.concat(sent.map(prefixed));
        const { frames } = read(Array.from(bytes, (byte) => Uint8Array.of(byte)));
        expect(frames).toEqual(sent.map(plainFrame));
      }),
      { numRuns: 50 },
    );
  });

  it('hands a piece on as it comes, and keeps nothing of it', () => {
    const pieceBytes = 64 * 1024 * 1024;
    const seen: [string, number][] = [];
    const reader = new FrameReader({
      begin: (frame) => seen.push(['begin', frame.pieceBytes as number]),
      bytes: (bytes) => {
        expect(bytes.buffer).toBe(chunk.buffer);
        seen.push(['bytes', bytes.byteLength]);
      },
      finish: () => seen.push(['finish', 0]),
    });
    const head = Buffer.concat([field(1, 0, varint(3)), varint(122), varint(pieceBytes)]);
    const chunk = Buffer.allocUnsafeSlow(1024 * 1024);
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(head.byteLength + pieceBytes, 1);
    reader.push(Buffer.concat([prefix, head]));
    expect(seen).toEqual([['begin', pieceBytes]]);
    for (let sent = 0; sent < pieceBytes; sent += chunk.byteLength) {
      expect(reader.midway).toBe(true);
      reader.push(chunk);
    }
    expect(reader.midway).toBe(false);
    expect(seen.slice(1)).toEqual([...new Array(64).fill(['bytes', chunk.byteLength]), ['finish', 0]]);
  });

  it('says how much of a chunk comes after what its handler is told of', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(100), { minLength: 1, maxLength: 8 }),
        fc.array(fc.nat(60), { maxLength: 20 }),
        (sizes, lengths) => {
          // Frames of which the piece tells how much of the whole is behind it.
          let bytes = Buffer.alloc(0);
          for (const [index, size] of sizes.entries()) {
            bytes = Buffer.concat([
              prefixed(v1.ExchangeFrame.encode({ call: sizes.length - index, piece: new Uint8Array(size) }).finish()),
              bytes,
            ]);
          }
          const behind = new Map<number, number>();
          let rest = bytes.byteLength;
          for (const sent of splitMessages(bytes)) {
            rest -= sent.byteLength + 5;
            behind.set(plainFrame(sent).call as number, rest);
          }
          let unread = bytes.byteLength;
          const reader: FrameReader = new FrameReader({
            begin: () => {},
            bytes: () => {},
            finish: ({ call }) => expect(unread + reader.left).toBe(behind.get(call)),
          });
          for (const chunk of cut(bytes, lengths)) {
            unread -= chunk.byteLength;
            reader.push(chunk);
          }
        },
      ),
    );
  });

  it.each<[string, Uint8Array]>([
    ['a compressed frame', Buffer.concat([Buffer.of(1), prefixed(Buffer.of(8, 1)).subarray(1)])],
    ['an endless number', prefixed(Buffer.alloc(20, 0xff))],
    ['an endless tag that has only come in part', prefixed(Buffer.alloc(20, 0xff)).subarray(0, 16)],
    ['a number beyond its frame', prefixed(Buffer.of(8, 0x80))],
    ['a number without value', prefixed(Buffer.of(8))],
    ['a number that JavaScript has not', prefixed(field(3, 0, Buffer.from('ffffffffffffffffff01', 'hex')))],
    ['a piece beyond its frame', prefixed(Buffer.of(0x7a, 3, 1, 2))],
    ['a piece of exabytes', prefixed(field(15, 2, varint(2 ** 53 - 1)))],
    [
      'a piece beyond its frame, of which nothing has come',
      prefixed(Buffer.concat([Buffer.of(0x7a, 30), Buffer.alloc(20)])).subarray(0, 7),
    ],
    ['a message beyond its frame', prefixed(Buffer.of(0x12, 3, 1))],
    ['a message that is none', prefixed(Buffer.of(0x12, 2, 0x0a, 9))],
    ['text that is no UTF-8', prefixed(bytesField(5, bytesField(2, Buffer.of(0xff))))],
    ['an unknown field beyond its frame', prefixed(Buffer.of(0x82, 1, 9, 1))],
    ['a fixed number beyond its frame', prefixed(Buffer.of(0x81, 1, 9, 1))],
    ['wire type 6', prefixed(Buffer.of(0x86, 1))],
    ['wire type 7', prefixed(Buffer.of(0x87, 1))],
  ])('refuses %s, whether it comes at once or byte by byte', (_, bytes) => {
    const malformed = expect.objectContaining({
      code: 'INTERNAL',
      message: expect.stringMatching(/^the peer's Exchange is malformed: ./),
    });
    expect(() => read([bytes])).toThrow(malformed);
    expect(() => read(Array.from(bytes, (byte) => Uint8Array.of(byte)))).toThrow(malformed);
  });

  it('gives a CommError for whatever is damaged, or what protobufjs gives, and nothing else', {
    timeout: 60_000,
  }, () => {
    const counts = { read: 0, refused: 0 };
    const damage = fc.array(fc.tuple(fc.nat(10_000), fc.oneof(fc.nat(255), fc.constantFrom(0xff, 0x80, 0x7a))), {
      minLength: 1,
      maxLength: 3,
    });
    const small = fc.array(
      message.filter(({ byteLength }) => byteLength < 500),
      { minLength: 1, maxLength: 3 },
    );
    fc.assert(
      fc.property(small, damage, fc.array(fc.nat(40), { maxLength: 10 }), (sent, changes, lengths) => {
        const bytes = Buffer.concat(sent.map(prefixed));
        for (const [at, value] of changes) bytes[at % bytes.byteLength] = value;
        try {
          const { frames, reader } = read(cut(bytes, lengths));
          counts.read++;
          if (!reader.midway) expect(frames).toHaveLength(splitMessages(bytes).length);
        } catch (error) {
          counts.refused++;
          expect(error).toBeInstanceOf(CommError);
          expect(error).toMatchObject({ code: 'INTERNAL' });
        }
      }),
      { numRuns: 1_000 },
    );
    expect(Math.min(counts.read, counts.refused)).toBeGreaterThan(50);
  });

  it('gathers no more than a few megabytes of a frame that never says what it is', () => {
    const { reader } = read([]);
    const prefix = Buffer.of(0, 0xff, 0xff, 0xff, 0xff);
    // A status that claims almost four gigabytes.
    reader.push(Buffer.concat([prefix, field(5, 2, varint(0xff_ff_ff_00))]));
    const chunk = Buffer.alloc(64 * 1024);
    let pushed = 0;
    expect(() => {
      for (; pushed < 16 * 1024 * 1024; pushed += chunk.byteLength) reader.push(chunk);
    }).toThrow(
      expect.objectContaining({ code: 'INTERNAL', message: "the peer's Exchange is malformed: an oversized frame" }),
    );
    expect(pushed).toBeLessThanOrEqual(2 * 1024 * 1024 + 64 * 1024);
  });
});

describe('writeHead', () => {
  const head: fc.Arbitrary<Head> = fc.record({
    call: uint32,
    begin: optional(someBytes),
    messageBytes: optional(uint53),
    end: optional(fc.boolean()),
    status: optional(someBytes),
    cancel: optional(uint32),
    takenBytes: optional(uint53),
    connection: optional(someBytes),
  });
  const beginning = (frame: Head): Head => ({
    ...frame,
    begin: frame.begin && v1.CallBegin.encode({ metadata: { a: 'b'.repeat(frame.begin.byteLength) } }).finish(),
    status: frame.status && v1.CallStatus.encode({ message: 'b'.repeat(frame.status.byteLength) }).finish(),
    connection: frame.connection && v1.ConnectionFrame.encode({ receivedBytes: frame.connection.byteLength }).finish(),
  });

  it('writes what protobufjs reads, within the room that it says it needs', () => {
    fc.assert(
      fc.property(
        head.map(beginning),
        fc.oneof(fc.constant(-1), fc.nat(100_000)),
        fc.nat(50),
        (frame, pieceBytes, offset) => {
          const room = headRoom(frame);
          const target = Buffer.alloc(offset + room + 100, 0xee);
          const at = writeHead(target, offset, frame, pieceBytes);
          expect(at - offset).toBeLessThanOrEqual(room);
          expect(target.subarray(0, offset).every((byte) => byte === 0xee)).toBe(true);
          expect(target.subarray(at).every((byte) => byte === 0xee)).toBe(true);
          const piece = Buffer.alloc(Math.max(0, pieceBytes), 3);
          const [sent, ...more] = splitMessages(Buffer.concat([target.subarray(offset, at), piece])) as [Buffer];
          expect(more).toEqual([]);
          const { begin, status, connection, ...numbers } = frame;
          const whole = v1.ExchangeFrame.fromObject({
            ...numbers,
            ...(begin && { begin: v1.CallBegin.decode(begin) }),
            ...(status && { status: v1.CallStatus.decode(status) }),
            ...(connection && { connection: v1.ConnectionFrame.decode(connection) }),
            ...(pieceBytes >= 0 && { piece }),
          });
          expect(plainFrame(sent)).toEqual(plainFrame(v1.ExchangeFrame.encode(whole).finish()));
        },
      ),
      { numRuns: 500 },
    );
  });

  it('needs no more room than it says for the largest numbers all together', () => {
    const bytes = new Uint8Array(2 ** 21);
    const frame: Head = {
      call: 2 ** 32 - 1,
      begin: bytes,
      messageBytes: Number.MAX_SAFE_INTEGER,
      end: true,
      status: bytes,
      cancel: 2 ** 32 - 1,
      takenBytes: Number.MAX_SAFE_INTEGER,
      connection: bytes,
    };
    const target = Buffer.alloc(headRoom(frame) + 100);
    expect(writeHead(target, 0, frame, 2 ** 31)).toBeLessThanOrEqual(headRoom(frame));
  });
});

describe('encodeBegin', () => {
  it('says what protobufjs says', () => {
    const metadata = fc.dictionary(fc.stringMatching(/^[a-z-]{1,8}$/), text, { maxKeys: 2 });
    const timeoutMs = fc.oneof(double, fc.constantFrom(Number.POSITIVE_INFINITY, Number.NaN, -1, 0));
    fc.assert(
      fc.property(fc.boolean(), timeoutMs, metadata, (session, timeout, headers) => {
        const decoded = v1.CallBegin.decode(encodeBegin(session, timeout, headers));
        expect(decoded.session).toBe(session);
        expect(decoded.timeoutMs ?? undefined).toBe(Number.isFinite(timeout) ? timeout : undefined);
        expect({ ...decoded.metadata }).toEqual(headers);
      }),
    );
  });
});

it('varintLength is that of protobuf', () => {
  fc.assert(fc.property(uint53, (value) => varintLength(value) === varint(value).byteLength));
});
