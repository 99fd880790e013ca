import { splitlearn } from '#proto';
import type { ByteStream } from '../grpc/byte-stream.js';
import { BulkRight, FREE_BYTES, UNIX_FREE_BYTES } from './bulk-right.js';
import { FrameReader } from './frame-reader.js';
import { FrameSender } from './frame-sender.js';
import type { Frame } from './frames.js';
import type { IncomingMessage } from './incoming-message.js';
import { type KeepAlive, Watchdog } from './watchdog.js';

import v1 = splitlearn.comm.v1;

/** What an Exchange's calls are to its connection. */
export interface Calls {
  /** How many are open. */
  size(): number;
  /** A frame of a call, before its piece: the message that the piece goes into; undefined to pass over it. */
  begin(frame: Frame): IncomingMessage | undefined;
  /** A frame of a call, after its piece. `message`: what this piece has completed. */
  finish(frame: Frame, message: Uint8Array | undefined): void;
  /** The peer begins no further call here. */
  draining?(): void;
}

export interface PeerOptions {
  readonly side: 'client' | 'server';
  readonly stream: ByteStream;
  /** What the other side said of itself. */
  readonly hello: v1.IHello;
  readonly calls: Calls;
  /** The largest message that grpc-js lets through, where frames go through it. */
  readonly maxMessageLength: number;
  readonly keepAlive: KeepAlive;
  /** The peer shows no sign of life any more. */
  readonly giveUp: () => void;
}

/** Node.js 26 no longer stops to read while it writes. */
export const READS_WHILE_WRITING = Number.parseInt(process.versions.node, 10) >= 26;

/** One end of an Exchange: frames in and out, and all that is about the connection and not about a call. */
export class ExchangePeer {
  readonly sender: FrameSender;
  readonly #calls: Calls;
  readonly #right: BulkRight;
  readonly #watchdog: Watchdog;
  readonly #reader: FrameReader;
  #incoming: IncomingMessage | undefined;

  constructor({ side, stream, hello, calls, maxMessageLength, keepAlive, giveUp }: PeerOptions) {
    this.#calls = calls;
    this.#right = new BulkRight(side, stream.isUnixSocket ? UNIX_FREE_BYTES : FREE_BYTES);
    if (READS_WHILE_WRITING || hello.readsWhileWriting) this.#right.switchOff();
    this.#watchdog = new Watchdog(keepAlive, {
      busy: () => calls.size() > 0 || this.sender.pendingBytes > 0,
      ask: () => this.sender.sendConnection({ ping: true }),
      giveUp,
    });
    const hooks = { awaiting: () => calls.size() > 0, progress: () => this.#watchdog.progress() };
    const limit = Math.min(maxMessageLength, Number(hello.maxMessageBytes) || Number.POSITIVE_INFINITY);
    const maxFrameBytes = stream.path === 'messages' ? limit : Number.POSITIVE_INFINITY;
    this.sender = new FrameSender(stream, this.#right, hooks, maxFrameBytes);
    this.#reader = new FrameReader({
      begin: (frame) => {
        this.#incoming = frame.call === 0 ? undefined : calls.begin(frame);
      },
      bytes: (bytes) => this.#incoming?.append(bytes),
      finish: (frame) => this.#finish(frame),
    });
  }

  /** @throws CommError `INTERNAL` for what is no Exchange. */
  receive(chunk: Uint8Array): void {
    this.#watchdog.progress();
    this.#right.received(chunk.length);
    this.#reader.push(chunk);
    this.sender.tell(this.#right.afterReads());
  }

  /** A call has been opened. */
  watch(): void {
    this.#watchdog.watch();
  }

  close(): void {
    this.#watchdog.stop();
    this.sender.close();
  }

  #finish(frame: Frame): void {
    if (frame.connection) this.#connection(frame.connection);
    const message = this.#incoming?.complete();
    this.#incoming = undefined;
    if (frame.call !== 0) this.#calls.finish(frame, message);
  }

  #connection({ draining, ping, bulkRight, receivedBytes }: v1.IConnectionFrame): void {
    if (ping) this.sender.sendConnection({ pong: true });
    if (draining) this.#calls.draining?.();
    if (bulkRight === v1.BulkRight.BULK_RIGHT_WANTED) this.#right.peerWants();
    if (bulkRight === v1.BulkRight.BULK_RIGHT_PASSED) this.#right.peerPassed(this.#reader.left);
    if (receivedBytes) this.#right.peerReceived(Number(receivedBytes));
    if (bulkRight || receivedBytes) this.sender.resume();
  }
}
