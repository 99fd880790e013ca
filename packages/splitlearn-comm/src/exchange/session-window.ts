/** Bytes of a session's messages that may wait for their reader on the other side; one message always may. */
export const SESSION_WINDOW_BYTES = 1024 * 1024;

/** What a message that waits costs beside its bytes: else a window of empty ones had no end. Part of the protocol. */
export const MESSAGE_OVERHEAD_BYTES = 128;

/** How far a session's writer may be ahead of its reader. */
export class SendWindow {
  #ahead = 0;
  #over = false;
  #wake: (() => void) | undefined;

  /**
   * Sends a message, and waits until it has left and there is room for another, or the session is over.
   *
   * @param send - Is given what to call when the message has left.
   */
  async write(bytes: number, send: (sent: () => void) => void): Promise<void> {
    if (this.#over) return;
    this.#ahead += bytes + MESSAGE_OVERHEAD_BYTES;
    let leaving = true;
    send(() => {
      leaving = false;
      this.#wake?.();
    });
    while (!this.#over && (leaving || this.#ahead >= SESSION_WINDOW_BYTES)) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** The reader has taken so many bytes. */
  taken(bytes: number): void {
    this.#ahead = Math.max(0, this.#ahead - bytes);
    this.#wake?.();
  }

  /** The session is over: nobody need wait any more. */
  release(): void {
    this.#over = true;
    this.#wake?.();
  }
}

/** A session's messages from when they arrive to when they are read. */
export class MessageQueue {
  readonly #messages: Uint8Array[] = [];
  readonly #taken: (bytes: number) => void;
  #end: { readonly error?: unknown } | undefined;
  #wake: (() => void) | undefined;
  #untold = 0;

  /** @param taken - Told of the bytes that have been read, so that as many may follow. */
  constructor(taken: (bytes: number) => void) {
    this.#taken = taken;
  }

  push(message: Uint8Array): void {
    if (this.#end) return;
    this.#messages.push(message);
    this.#wake?.();
  }

  /** No further message comes: that was all, or an error comes after it. */
  end(failure?: { readonly error: unknown }): void {
    this.#end ??= failure ?? {};
    this.#wake?.();
  }

  /** The session is over at once: what nobody has read yet is not read any more. */
  abort(error: unknown): void {
    this.#messages.length = 0;
    this.#end = { error };
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void> {
    for (;;) {
      const message = this.#messages.shift();
      if (message) {
        this.#tell(message.length + MESSAGE_OVERHEAD_BYTES);
        yield message;
      } else if (this.#end) {
        if ('error' in this.#end) throw this.#end.error;
        return;
      } else {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        this.#wake = undefined;
      }
    }
  }

  /** Not for each message: a session may have very many, very small ones. */
  #tell(bytes: number): void {
    this.#untold += bytes;
    if (this.#untold < SESSION_WINDOW_BYTES / 4) return;
    this.#taken(this.#untold);
    this.#untold = 0;
  }
}
