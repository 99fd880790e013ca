import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { Pipe, withManualTicks } from '../../test/support/byte-wire.js';
import { BulkRight, FREE_BYTES, UNIX_FREE_BYTES } from './bulk-right.js';
import { FrameReader } from './frame-reader.js';
import { FrameSender } from './frame-sender.js';
import type { Frame } from './frames.js';

import v1 = splitlearn.comm.v1;

const KIB = 1024;
const MIB = 1024 * KIB;
/** What a side may have on the way without the right, and one direction of its kernel. */
const networks = {
  TCP: { freeBytes: FREE_BYTES, kernel: () => new Pipe(FREE_BYTES + 64 * KIB) },
  'a unix socket': { freeBytes: UNIX_FREE_BYTES, kernel: () => new Pipe(208 * KIB, 52 * KIB) },
};
type Network = (typeof networks)['TCP'];

interface EndOptions {
  readonly side: 'client' | 'server';
  readonly off: boolean;
  readonly freeBytes: number;
  readonly sends: Pipe;
  readonly receives: Pipe;
}

/**
 * One side of a connection, put together as ExchangePeer does it, in a Node.js that does not read while it waits to
 * write.
 */
class End {
  readonly right: BulkRight;
  readonly sender: FrameSender;
  awaiting = false;
  /** Bytes of messages that were wanted of the other side, and have come. */
  arrivedBytes = 0;
  /** Where in what the other side has written it passed the right, and what has been acknowledged of all behind that. */
  passedAt = 0;
  acknowledgedBytes = 0;
  /** What this side has written since it passed the right. Frames about the connection do not count. */
  readonly writesSincePass: { readonly end: number; readonly bytes: number; readonly counts: boolean }[] = [];
  passEnd = 0;
  readonly #sends: Pipe;
  readonly #receives: Pipe;
  readonly #reader: FrameReader;
  readonly #other: () => End;
  #calls = 0;

  constructor({ side, off, freeBytes, sends, receives }: EndOptions, other: () => End) {
    this.#sends = sends;
    this.#receives = receives;
    this.#other = other;
    this.right = new BulkRight(side, freeBytes);
    if (off) this.right.switchOff();
    const stream = {
      path: 'http2' as const,
      isUnixSocket: false,
      write: (chunks: readonly Uint8Array[], written: () => void) => this.#write(chunks, written),
      end: () => {},
    };
    this.sender = new FrameSender(stream, this.right, { awaiting: () => this.awaiting, progress: () => {} });
    this.#reader = new FrameReader({
      begin: () => {},
      bytes: (bytes) => {
        this.arrivedBytes += bytes.byteLength;
      },
      finish: (frame) => this.#finish(frame),
    });
  }

  /** Bytes that it has written since it passed the right, and that the other side has not read. */
  get unreadBytes(): number {
    return this.#sends.writtenBytes - Math.max(this.passEnd, this.#sends.readBytes);
  }

  get unreadWrites(): number {
    return this.writesSincePass.filter(({ end, counts }) => counts && end > this.#sends.readBytes).length;
  }

  get connectionWrites(): number {
    return this.writesSincePass.filter(({ counts }) => !counts).length;
  }

  get connectionBytes(): number {
    return this.writesSincePass.reduce((sum, { bytes, counts }) => sum + (counts ? 0 : bytes), 0);
  }

  send(byteLength: number): void {
    const bytes = Buffer.alloc(byteLength);
    this.sender.sendMessage(
      { call: ++this.#calls },
      { byteLength, writeTo: (target, at) => target.set(bytes, at), toParts: () => [bytes] },
    );
  }

  /** An error with a long message, which goes as one frame however long it is. */
  sendStatus(byteLength: number): void {
    this.sender.sendHead({
      call: ++this.#calls,
      status: v1.CallStatus.encode({ message: 'x'.repeat(byteLength) }).finish(),
    });
  }

  flush(): boolean {
    return this.#sends.flush();
  }

  /** Reads, unless a write of its own waits. */
  read(maxBytes: number): boolean {
    this.#sends.flush();
    if (this.#sends.waits || this.#receives.available === 0) return false;
    const chunk = this.#receives.read(maxBytes);
    this.right.received(chunk.byteLength);
    this.#reader.push(chunk);
    this.sender.tell(this.right.afterReads());
    return true;
  }

  #write(chunks: readonly Uint8Array[], written: () => void): void {
    this.#sends.write(chunks, written);
    this.#look(Buffer.concat(chunks));
  }

  /** What a frame about the connection means to the model. */
  #look(bytes: Buffer): void {
    const end = this.#sends.writtenBytes;
    const { connection } = v1.ExchangeFrame.decode(bytes.subarray(5, 5 + bytes.readUInt32BE(1)));
    if (connection?.bulkRight === v1.BulkRight.BULK_RIGHT_PASSED) {
      expect(this.right.held).toBe(false);
      this.passEnd = end;
      this.writesSincePass.length = 0;
      Object.assign(this.#other(), { passedAt: end, acknowledgedBytes: 0 });
      return;
    }
    if (connection && Number(connection.receivedBytes) > 0) {
      // Exactly what has been read behind the pass, and was not acknowledged before.
      this.acknowledgedBytes += Number(connection.receivedBytes);
      expect(this.acknowledgedBytes).toBe(this.#receives.readBytes - this.passedAt);
    }
    if (!this.right.held) this.writesSincePass.push({ end, bytes: bytes.byteLength, counts: !connection });
  }

  #finish({ connection }: Frame): void {
    if (!connection) return;
    const { bulkRight, receivedBytes } = connection;
    if (bulkRight === v1.BulkRight.BULK_RIGHT_WANTED) this.right.peerWants();
    if (bulkRight === v1.BulkRight.BULK_RIGHT_PASSED) this.right.peerPassed(this.#reader.left);
    if (receivedBytes) this.right.peerReceived(Number(receivedBytes));
    if (bulkRight || receivedBytes) this.sender.resume();
  }
}

class Connection {
  readonly client: End;
  readonly server: End;
  readonly #up: Pipe;
  readonly #down: Pipe;
  readonly #freeBytes: number;

  constructor({ freeBytes, kernel }: Network, off = false) {
    this.#freeBytes = freeBytes;
    this.#up = kernel();
    this.#down = kernel();
    const both = { off, freeBytes };
    this.client = new End({ ...both, side: 'client', sends: this.#up, receives: this.#down }, () => this.server);
    this.server = new End({ ...both, side: 'server', sends: this.#down, receives: this.#up }, () => this.client);
  }

  /** Neither will ever read again. */
  get isDeadlocked(): boolean {
    for (const end of [this.client, this.server]) end.flush();
    return this.#up.waits && this.#down.waits;
  }

  check(): void {
    expect(this.client.right.held && this.server.right.held).toBe(false);
    for (const end of [this.client, this.server]) {
      if (end.right.held) continue;
      // What goes about the connection is acknowledged and not counted: a few bytes that take as many of others along.
      expect(end.unreadBytes).toBeLessThanOrEqual(this.#freeBytes + 2 * end.connectionBytes);
      expect(end.unreadWrites).toBeLessThanOrEqual(this.#freeBytes / (2 * KIB) + end.connectionWrites);
    }
    expect(this.isDeadlocked).toBe(false);
  }

  /** Goes on until nothing happens any more. */
  settle(runTicks: () => void, look = () => {}): void {
    for (let moved = true; moved; ) {
      moved = false;
      for (const end of [this.client, this.server]) {
        runTicks();
        moved = end.flush() || moved;
        moved = end.read(64 * KIB) || moved;
        runTicks();
        look();
      }
    }
  }
}

type Step =
  | { readonly kind: 'send' | 'status'; readonly side: 'client' | 'server'; readonly bytes: number }
  | { readonly kind: 'read'; readonly side: 'client' | 'server'; readonly bytes: number }
  | { readonly kind: 'flush' | 'await'; readonly side: 'client' | 'server' };

const side = fc.constantFrom('client' as const, 'server' as const);
const messageBytes = fc.oneof(
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 2_000 }) },
  { weight: 2, arbitrary: fc.integer({ min: 0, max: 17 * KIB }) },
  { weight: 3, arbitrary: fc.integer({ min: 16 * KIB, max: 600 * KIB }) },
  { weight: 1, arbitrary: fc.constantFrom(MIB, 5 * MIB) },
);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('send' as const), side, bytes: messageBytes }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('status' as const), side, bytes: fc.integer({ min: 0, max: 300 * KIB }) }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant('read' as const),
      side,
      bytes: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.constant(64 * KIB)),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constantFrom('flush' as const, 'await' as const), side }) },
);
/** Many small writes in a row, each on its own. */
const run: fc.Arbitrary<Step[]> = fc.oneof(
  { weight: 10, arbitrary: step.map((one) => [one]) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(side, fc.integer({ min: 1, max: 80 }))
      .map(([sender, count]) =>
        Array.from({ length: count }, () => ({ kind: 'send' as const, side: sender, bytes: 10 })),
      ),
  },
);
const steps = fc.array(run, { maxLength: 80, size: 'max' }).map((runs) => runs.flat());

describe.each(Object.entries(networks))('two sides on %s that do not read while they wait to write', (_, network) => {
  it('never wait for each other, and get all across, whatever they send and whoever is faster', {
    timeout: 60_000,
  }, () => {
    fc.assert(
      fc.property(steps, (plan) =>
        withManualTicks((runTicks) => {
          const connection = new Connection(network);
          const wanted = { client: 0, server: 0 };
          for (const one of plan) {
            const end = connection[one.side];
            if (one.kind === 'send') {
              end.send(one.bytes);
              wanted[one.side] += one.bytes;
            } else if (one.kind === 'status') end.sendStatus(one.bytes);
            else if (one.kind === 'read') end.read(one.bytes);
            else if (one.kind === 'flush') end.flush();
            else end.awaiting = !end.awaiting;
            runTicks();
            connection.check();
          }
          connection.settle(runTicks, () => connection.check());
          expect([connection.client.sender.pendingBytes, connection.server.sender.pendingBytes]).toEqual([0, 0]);
          expect([connection.server.arrivedBytes, connection.client.arrivedBytes]).toEqual([
            wanted.client,
            wanted.server,
          ]);
        }),
      ),
      { numRuns: 80 },
    );
  });

  it('would wait for each other for ever without the bulk right', () => {
    withManualTicks((runTicks) => {
      for (const off of [true, false]) {
        const connection = new Connection(network, off);
        for (const end of [connection.client, connection.server]) end.send(MIB);
        connection.settle(runTicks);
        expect(connection.isDeadlocked).toBe(off);
        expect(connection.client.arrivedBytes === MIB).toBe(!off);
      }
    });
  });
});

/**
 * A client passes the right behind a message of that size and begins another one; the server reads up to the pass and
 * answers, and so reads no more. Whether they end up waiting for each other, on a unix socket.
 */
function hangs(freeBytes: number, byteLength: number): boolean {
  return withManualTicks((runTicks) => {
    const connection = new Connection({ ...networks['a unix socket'], freeBytes });
    const { client, server } = connection;
    client.awaiting = true;
    server.send(384 * KIB);
    client.send(byteLength);
    runTicks();
    client.send(384 * KIB);
    runTicks();
    server.flush();
    for (let read = 0; !server.right.held; ) {
      client.flush();
      const bytes = Math.min(4 * KIB, client.passEnd - read);
      expect(server.read(bytes)).toBe(true);
      read += bytes;
    }
    runTicks();
    connection.settle(runTicks);
    return connection.isDeadlocked;
  });
}

it('on a unix socket may have less on the way than on TCP, or its writer is not told that there is room', () => {
  const sizes = Array.from({ length: 60 }, (_, index) => (200 + 4 * index) * KIB);
  expect(sizes.some((byteLength) => hangs(FREE_BYTES, byteLength))).toBe(true);
  expect(sizes.filter((byteLength) => hangs(UNIX_FREE_BYTES, byteLength))).toEqual([]);
});
