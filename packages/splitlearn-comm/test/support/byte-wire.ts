import { vi } from 'vitest';
import type { ByteStream } from '../../src/grpc/byte-stream.js';

/**
 * Runs a step in which `process.nextTick` waits until it is told to go on, so that a test can be a plain loop. What the
 * step does must not wait for anything.
 */
export function withManualTicks<T>(step: (runTicks: () => void) => T): T {
  const ticks: (() => void)[] = [];
  const spy = vi.spyOn(process, 'nextTick').mockImplementation((tick) => void ticks.push(tick as () => void));
  try {
    return step(() => {
      for (let tick = ticks.shift(); tick; tick = ticks.shift()) tick();
    });
  } finally {
    spy.mockRestore();
  }
}

interface Write {
  readonly bytes: Buffer;
  readonly written: () => void;
}

/** One direction of a connection: what a side has written goes through a kernel that takes so many bytes and no more. */
export class Pipe implements ByteStream {
  readonly path = 'http2';
  readonly isUnixSocket = false;
  /** All bytes that have been written, and that have been read. */
  writtenBytes = 0;
  readBytes = 0;
  ended = false;
  readonly #capacity: number;
  readonly #resumeBytes: number;
  #full = false;
  readonly #writes: Write[] = [];
  readonly #kernel: Buffer[] = [];
  #kernelBytes = 0;

  /** @param resumeBytes - When it was full, it takes more as soon as it has no more than that. Default: as soon as it can. */
  constructor(capacity: number, resumeBytes = capacity - 1) {
    this.#capacity = capacity;
    this.#resumeBytes = resumeBytes;
  }

  /** Whether a write waits for the kernel. */
  get waits(): boolean {
    return this.#writes.length > 0;
  }

  /** What can be read now. */
  get available(): number {
    return this.#kernelBytes;
  }

  write(chunks: readonly Uint8Array[], written: () => void): void {
    const bytes = Buffer.concat(chunks);
    this.writtenBytes += bytes.byteLength;
    this.#writes.push({ bytes, written });
  }

  end(): void {
    this.ended = true;
  }

  /** Gives the kernel what it takes; says whether it took anything. */
  flush(): boolean {
    let took = false;
    if (this.#full && this.#kernelBytes > this.#resumeBytes) return false;
    this.#full = false;
    for (let write = this.#writes[0]; write; write = this.#writes[0]) {
      const room = this.#capacity - this.#kernelBytes;
      if (room === 0) {
        this.#full = true;
        break;
      }
      const taken = write.bytes.subarray(0, room);
      this.#kernel.push(taken);
      this.#kernelBytes += taken.byteLength;
      took = true;
      if (taken.byteLength < write.bytes.byteLength) {
        this.#writes[0] = { ...write, bytes: write.bytes.subarray(taken.byteLength) };
        this.#full = true;
        break;
      }
      this.#writes.shift();
      write.written();
    }
    return took;
  }

  /** Takes so many bytes out of the kernel, or those that it has. */
  read(maxBytes: number): Buffer {
    const chunks: Buffer[] = [];
    let left = maxBytes;
    while (left > 0 && this.#kernel.length > 0) {
      const first = this.#kernel[0] as Buffer;
      const taken = first.subarray(0, left);
      chunks.push(taken);
      left -= taken.byteLength;
      if (taken.byteLength === first.byteLength) this.#kernel.shift();
      else this.#kernel[0] = first.subarray(taken.byteLength);
    }
    const bytes = Buffer.concat(chunks);
    this.#kernelBytes -= bytes.byteLength;
    this.readBytes += bytes.byteLength;
    return bytes;
  }
}
