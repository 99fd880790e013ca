/** Smaller ones are not worth keeping, larger ones are rare and much to keep. */
const MIN_BYTES = 16 * 1024;
const MAX_BYTES = 32 * 1024 * 1024;
/** What is kept for later, of all sizes together. */
const MAX_KEPT_BYTES = 64 * 1024 * 1024;
/** How long what is kept may lie unused. */
const IDLE_MS = 5_000;

/**
 * Memory for messages on their way out, used again and again. Fresh memory is several times slower to write to than memory
 * that has been written to before, and V8 collects garbage for every few megabytes of it.
 */
export class SendBuffers {
  /** Buffers that are free, by their size, which is a power of two. */
  readonly #free = new Map<number, Buffer[]>();
  #keptBytes = 0;
  #used = false;
  #timer: NodeJS.Timeout | undefined;

  /** Memory of that many bytes. Whoever takes it may give it back, or leave it to the garbage collector. */
  take(bytes: number): Buffer {
    if (bytes < MIN_BYTES || bytes > MAX_BYTES) return Buffer.allocUnsafe(bytes);
    this.#used = true;
    const size = 2 ** Math.ceil(Math.log2(bytes));
    const kept = this.#free.get(size)?.pop();
    if (kept) this.#keptBytes -= size;
    return (kept ?? Buffer.allocUnsafeSlow(size)).subarray(0, bytes);
  }

  /** Nobody writes to or reads from it any more. */
  giveBack(buffer: Buffer): void {
    const size = buffer.buffer.byteLength;
    if (buffer.byteLength < MIN_BYTES || size > MAX_BYTES || this.#keptBytes + size > MAX_KEPT_BYTES) return;
    const free = this.#free.get(size) ?? [];
    this.#free.set(size, free);
    free.push(Buffer.from(buffer.buffer));
    this.#keptBytes += size;
    this.#timer ??= setInterval(() => this.#forget(), IDLE_MS).unref();
  }

  /** Lets go of everything when nothing was taken for a while. */
  #forget(): void {
    if (this.#used) {
      this.#used = false;
      return;
    }
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#free.clear();
    this.#keptBytes = 0;
  }
}

/** One for all connections of the process: what one has sent is warm for the next. */
export const sendBuffers = new SendBuffers();
