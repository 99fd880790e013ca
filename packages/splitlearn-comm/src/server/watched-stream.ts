import { constants, type ServerHttp2Stream } from 'node:http2';
import type { CommError } from '../errors.js';
import { toStatus } from '../grpc/status.js';

/** A flag and four bytes of length, before every message (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). */
const PREFIX_BYTES = 5;
/** What has to go on between two sweeps that are a timeout apart to count as going on. */
const PROGRESS_BYTES = 1024;
/**
 * Node does not say how much of one long write the peer has taken. As long as its connection moves it gets the time that
 * this slow a line would need.
 */
const SLOWEST_BYTES_PER_SECOND = 64 * 1024;

/** Whether a stream's requests are one message and an end, or messages with as much time between them as the caller likes. */
type RequestShape = 'unary' | 'session';

/** A call as HTTP/2 sees it, and whether it waits for its peer. */
export class WatchedStream {
  readonly stream: ServerHttp2Stream;
  readonly #shape: RequestShape;
  /** How much of a message's prefix and content has come, or is still to come. */
  #prefixBytes = 0;
  #messageBytes = 0;
  #missingBytes = 0;
  #receivedBytes = 0;
  #writtenBytes = 0;
  #takenBytes = 0;
  #connectionBytes = 0;
  /** Sweeps without progress. */
  #unsentSweeps = 0;
  #unmovedSweeps = 0;
  #untakenSweeps = 0;
  #closing = false;

  private constructor(stream: ServerHttp2Stream, shape: RequestShape) {
    this.stream = stream;
    this.#shape = shape;
    // grpc-js has said when it wants data; another listener changes nothing of that.
    stream.on('data', (chunk: Buffer) => this.#received(chunk));
    const write = stream.write as (chunk: Uint8Array, ...rest: unknown[]) => boolean;
    stream.write = (chunk: Uint8Array, ...rest: unknown[]) => {
      this.#writtenBytes += chunk.byteLength;
      return write.call(stream, chunk, ...rest);
    };
  }

  /** @returns nothing for a stream that looks after itself. */
  static of(stream: ServerHttp2Stream, path: string): WatchedStream | undefined {
    switch (path.slice(path.lastIndexOf('/') + 1)) {
      case 'Exchange': // has a stall detector of its own
        return undefined;
      case 'ComputeStream':
      case 'ServerReflectionInfo':
        return new WatchedStream(stream, 'session');
      default:
        return new WatchedStream(stream, 'unary');
    }
  }

  /**
   * Looks at the stream, once in a while of `sweepMs`.
   *
   * @param limit - How many sweeps without progress are too many.
   * @returns `stream` when it has waited too long for its peer, `connection` when its end has waited so as well.
   */
  sweep(limit: number, sweepMs: number): 'stream' | 'connection' | undefined {
    if (this.#closing) {
      this.#look(false);
      return this.#unmovedSweeps > limit ? 'connection' : undefined;
    }
    return this.#isUnsent(limit) || this.#isUntaken(limit, sweepMs) ? 'stream' : undefined;
  }

  /** Ends the call, with a status where nothing has been answered yet. */
  close(error: CommError): void {
    this.#closing = true;
    if (this.stream.headersSent) {
      this.stream.close(constants.NGHTTP2_CANCEL);
      return;
    }
    const { code, details, metadata } = toStatus(error);
    const status = { 'grpc-status': code, 'grpc-message': encodeURI(details), ...metadata.toHttp2Headers() };
    this.stream.respond({ ':status': 200, 'content-type': 'application/grpc+proto', ...status }, { endStream: true });
    // The answer is whole, and the rest of the request is not wanted any more (RFC 9113, 8.1).
    this.stream.close(constants.NGHTTP2_NO_ERROR);
  }

  #received(chunk: Buffer): void {
    this.#receivedBytes += chunk.byteLength;
    if (this.#receivedBytes >= PROGRESS_BYTES) this.#progressed();
    if (this.#shape === 'unary') return;
    for (let at = 0; at < chunk.byteLength; ) {
      if (this.#missingBytes > 0) {
        const taken = Math.min(this.#missingBytes, chunk.byteLength - at);
        this.#missingBytes -= taken;
        at += taken;
      } else {
        // The flag comes first, and is no part of the length.
        if (this.#prefixBytes++ > 0) this.#messageBytes = this.#messageBytes * 256 + (chunk[at] as number);
        at++;
        if (this.#prefixBytes < PREFIX_BYTES) continue;
        this.#missingBytes = this.#messageBytes;
        this.#prefixBytes = 0;
        this.#messageBytes = 0;
      }
      if (!this.#isWithinMessage()) this.#progressed();
    }
  }

  #progressed(): void {
    this.#receivedBytes = 0;
    this.#unsentSweeps = 0;
  }

  #isWithinMessage(): boolean {
    return this.#prefixBytes > 0 || this.#missingBytes > 0;
  }

  /** The peer owes the rest of a message, or the end of what it asks. While the stream is paused, it is the server that waits. */
  #isUnsent(limit: number): boolean {
    const stream = this.stream;
    const owes = this.#shape === 'unary' || this.#isWithinMessage() || stream.writableFinished;
    if (!owes || stream.readableEnded || stream.isPaused()) this.#progressed();
    else this.#unsentSweeps++;
    return this.#unsentSweeps > limit;
  }

  /** The peer does not take what is waiting for it. */
  #isUntaken(limit: number, sweepMs: number): boolean {
    const pendingBytes = this.stream.writableLength;
    const takenBytes = this.#writtenBytes - pendingBytes;
    const taken = pendingBytes === 0 || takenBytes !== this.#takenBytes;
    this.#takenBytes = takenBytes;
    this.#untakenSweeps = taken ? 0 : this.#untakenSweeps + 1;
    this.#look(taken);
    const patience = limit + (pendingBytes / SLOWEST_BYTES_PER_SECOND) * (1000 / sweepMs);
    return this.#unmovedSweeps > limit || this.#untakenSweeps > patience;
  }

  /** Looks whether the connection moves: whether anything of it is written. */
  #look(progress: boolean): void {
    const connectionBytes = this.stream.session?.socket?.bytesWritten ?? 0;
    const moved = progress || connectionBytes - this.#connectionBytes >= PROGRESS_BYTES;
    if (moved) this.#connectionBytes = connectionBytes;
    this.#unmovedSweeps = moved ? 0 : this.#unmovedSweeps + 1;
  }
}
