import { createHash, type Hash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { HubFile } from './hub-api.js';

/** To append to a file, made if need be; never through a link, which could lead anywhere (Windows has no such flag). */
const APPEND = constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | (constants.O_NOFOLLOW ?? 0);

/** Where the bytes of one range go, in order. */
export interface RangeSink {
  /** Where in the whole file the next byte belongs. */
  readonly position: number;
  /** Bytes that wait to be written. */
  readonly backlog: number;
  write(bytes: Uint8Array): void;
  /** Resolves when all is written. @throws what went wrong with the disk. */
  flush(): Promise<void>;
  /** Forgets all bytes of the range. */
  restart(): Promise<void>;
  /** Tells that the range is complete, or given up for now. */
  close(): Promise<void>;
}

/**
 * A file of which only parts are there yet.
 *
 * `<blob>.incomplete` always holds an unbroken beginning of the file: that is what Python's huggingface_hub takes it
 * for, which would go on behind a hole otherwise. A range further on gets a file of its own, `<blob>.<offset>.incomplete`,
 * until the beginning has grown up to it. So whatever was received is used again, also after the process was killed.
 */
export class PartialFile {
  readonly #blob: string;
  readonly #file: HubFile;
  readonly #rangeBytes: number;
  readonly #open = new Set<number>();
  #handle: FileHandle;
  #hash: Hash;
  #length = 0;
  #turns: Promise<unknown> = Promise.resolve();

  private constructor(blob: string, file: HubFile, rangeBytes: number, handle: FileHandle) {
    this.#blob = blob;
    this.#file = file;
    this.#rangeBytes = rangeBytes;
    this.#handle = handle;
    this.#hash = newHash(file);
  }

  /** @param blob absolute path of the complete file. */
  static async open(blob: string, file: HubFile, rangeBytes: number): Promise<PartialFile> {
    await mkdir(dirname(blob), { recursive: true });
    const handle = await open(`${blob}.incomplete`, APPEND);
    const partial = new PartialFile(blob, file, rangeBytes, handle);
    try {
      await partial.#takeUp();
    } catch (error) {
      await handle.close();
      throw error;
    }
    return partial;
  }

  /** How many bytes of the file are on disk, in the partial files of a blob that may have none. */
  static async bytesOnDisk(blob: string): Promise<number> {
    const beginning = await stat(`${blob}.incomplete`).catch(() => undefined);
    const parts = await partsOf(blob);
    return (beginning?.size ?? 0) + parts.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** The unbroken beginning, in bytes. */
  get length(): number {
    return this.#length;
  }

  /** Where the ranges begin that are not complete. */
  *missingRanges(): Generator<number> {
    const first = Math.floor(this.#length / this.#rangeBytes) * this.#rangeBytes;
    for (let start = first; start < this.#file.size; start += this.#rangeBytes) yield start;
  }

  /** The end of the range that begins at `start`. */
  endOf(start: number): number {
    return Math.min(start + this.#rangeBytes, this.#file.size);
  }

  /** Where the bytes of the range that begins at `start` go; its position tells how many of them are there already. */
  sink(start: number): Promise<RangeSink> {
    return this.#inTurn(async () => {
      await this.#join();
      const sink = start <= this.#length ? this.#sinkAtBeginning(start) : await this.#sinkOfPart(start);
      this.#open.add(start);
      return sink;
    });
  }

  /**
   * Puts the file where it belongs, if it is what the hub says it is; deletes all of it otherwise.
   *
   * @returns whether it was.
   */
  async complete(): Promise<boolean> {
    await this.#handle.sync();
    // Another program that wrote to the same file, unaware of our lock, made it longer.
    const isWhole = this.#length === this.#file.size && (await this.#handle.stat()).size === this.#file.size;
    const isRight = isWhole && this.#hash.digest('hex') === this.#file.etag;
    await this.#handle.close();
    if (isRight) await rename(`${this.#blob}.incomplete`, this.#blob);
    else await this.discard();
    return isRight;
  }

  /** Stops, and keeps what is there for the next time. */
  async close(): Promise<void> {
    await this.#turns;
    await this.#handle.close();
  }

  /** Deletes what is there. */
  async discard(): Promise<void> {
    await rm(`${this.#blob}.incomplete`, { force: true });
    for (const { path } of await this.#parts()) await rm(path, { force: true });
  }

  /** Goes on from what an earlier download has left, as far as it was cut into the same ranges. */
  async #takeUp(): Promise<void> {
    await this.#readBeginning();
    for (const { offset, bytes, path } of await this.#parts()) {
      const fits = offset % this.#rangeBytes === 0 && bytes <= this.#rangeBytes && offset + bytes <= this.#file.size;
      if (!fits) await rm(path);
    }
    await this.#inTurn(() => this.#join());
  }

  async #readBeginning(): Promise<void> {
    const { size } = await this.#handle.stat();
    if (size > this.#file.size) {
      await this.#restart();
      return;
    }
    for await (const piece of createReadStream(`${this.#blob}.incomplete`)) this.#grow(piece);
  }

  #grow(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.#length += bytes.byteLength;
  }

  async #restart(): Promise<number> {
    await this.#handle.truncate(0);
    this.#hash = newHash(this.#file);
    this.#length = 0;
    return 0;
  }

  #sinkAtBeginning(start: number): RangeSink {
    return new Sink(this.#handle, this.#length, {
      written: (bytes) => this.#grow(bytes),
      restart: () => this.#restart(),
      close: () => this.#closed(start),
    });
  }

  async #sinkOfPart(start: number): Promise<RangeSink> {
    const handle = await open(`${this.#blob}.${start}.incomplete`, APPEND);
    return new Sink(handle, start + (await handle.stat()).size, {
      written: () => {},
      restart: async () => {
        await handle.truncate(0);
        return start;
      },
      close: async () => {
        await handle.close();
        await this.#closed(start);
      },
    });
  }

  async #closed(start: number): Promise<void> {
    this.#open.delete(start);
    await this.#inTurn(() => this.#join());
  }

  /** Moves the parts that the beginning has reached into it. */
  async #join(): Promise<void> {
    for (;;) {
      // A range that is being written to the beginning itself ends before the next may follow.
      if ([...this.#open].some((start) => start <= this.#length)) return;
      const next = (await this.#parts()).find(({ offset }) => offset <= this.#length);
      if (!next) return;
      const start = this.#length - next.offset;
      if (start < next.bytes) {
        for await (const piece of createReadStream(next.path, { start })) {
          await this.#handle.appendFile(piece);
          this.#grow(piece);
        }
      }
      await rm(next.path);
    }
  }

  /** Which part is where is looked at and changed by one at a time. */
  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const turn = this.#turns.then(run);
    this.#turns = turn.catch(() => {});
    return turn;
  }

  #parts() {
    return partsOf(this.#blob);
  }
}

async function partsOf(blob: string): Promise<{ offset: number; bytes: number; path: string }[]> {
  const folder = dirname(blob);
  const name = basename(blob);
  const parts = [];
  for (const entry of await readdir(folder).catch(() => [])) {
    const offset = entry.startsWith(`${name}.`) && /^\.(\d+)\.incomplete$/.exec(entry.slice(name.length))?.[1];
    if (!offset) continue;
    const path = join(folder, entry);
    const stats = await stat(path).catch(() => undefined);
    if (stats) parts.push({ offset: Number(offset), bytes: stats.size, path });
  }
  return parts.sort((one, other) => one.offset - other.offset);
}

function newHash({ size, etag }: HubFile): Hash {
  return etag.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

interface SinkOwner {
  written(bytes: Uint8Array): void;
  restart(): Promise<number>;
  close(): Promise<void>;
}

/** Writes in order, without anybody waiting for each piece: a connection that breaks loses what nobody has read yet. */
class Sink implements RangeSink {
  readonly #handle: FileHandle;
  readonly #owner: SinkOwner;
  position: number;
  backlog = 0;
  #writing: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;

  constructor(handle: FileHandle, position: number, owner: SinkOwner) {
    this.#handle = handle;
    this.position = position;
    this.#owner = owner;
  }

  write(bytes: Uint8Array): void {
    this.position += bytes.byteLength;
    this.backlog += bytes.byteLength;
    this.#writing = this.#writing.then(async () => {
      if (this.#failure) return;
      try {
        await this.#handle.appendFile(bytes);
        this.#owner.written(bytes);
      } catch (error) {
        this.#failure = { error };
      } finally {
        this.backlog -= bytes.byteLength;
      }
    });
  }

  async flush(): Promise<void> {
    await this.#writing;
    if (this.#failure) throw this.#failure.error;
  }

  async restart(): Promise<void> {
    await this.flush();
    this.position = await this.#owner.restart();
  }

  close(): Promise<void> {
    return this.#owner.close();
  }
}
