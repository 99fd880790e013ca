import type { ServerHttp2Stream } from 'node:http2';

const STALL_MS = 1_000;

/**
 * Notices that a connection with TLS is gone while something is written to it. Before Node.js 26 an HTTP/2 session does not
 * read while it writes, and a write over TLS that fails at once is never said to have ended (`TLSWrap::EncOut`): so the
 * session notices nothing any more, and its calls wait. Where nothing has moved for a second it is made to read, which
 * tells it.
 */
export class StallBreaker {
  readonly #stream: ServerHttp2Stream;
  #pending = 0;
  #moved = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
  }

  /** A write begins; call the result when it has ended. */
  begin(written: () => void): () => void {
    this.#pending++;
    this.#timer ??= setTimeout(() => this.#look(), STALL_MS).unref();
    return () => {
      this.#pending--;
      this.#moved = true;
      written();
    };
  }

  #look(): void {
    this.#timer = undefined;
    const { session, destroyed } = this.#stream;
    if (destroyed || this.#pending === 0) return;
    if (!this.#moved) {
      (session?.socket as unknown as { _handle?: { readStart?(): void } } | undefined)?._handle?.readStart?.();
    }
    this.#moved = false;
    this.#timer = setTimeout(() => this.#look(), STALL_MS).unref();
  }
}
