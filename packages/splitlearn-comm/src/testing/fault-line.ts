import type { Duplex } from 'node:stream';
import { MAX_TIMER_MS } from '../check-options.js';

// How a FaultRelay carries bytes: a line for each direction, and on it a lane for each connection.

/** What the network is like in one direction, for all connections through it. */
export interface FaultConditions {
  /**
   * Milliseconds that each byte is under way, to within one or so; making a connection takes none. Costs no throughput
   * up to `bufferBytes` at a time. Default 0.
   */
  readonly delayMs?: number;
  /** What all connections share evenly. Who sends faster has to wait, as if the socket were full. Default `Infinity`. */
  readonly bytesPerSecond?: number;
  /**
   * While true, nothing is read any more and nothing arrives, closing included: a peer that hangs, or a route that is
   * gone for a while. Nothing is lost: all of it arrives when this is false again. Default false.
   */
  readonly stalled?: boolean;
  /** How many bytes pass, on average, until their connection is cut. The places are drawn. Default `Infinity`. */
  readonly cutEveryBytes?: number;
  /** How many bytes pass, on average, until one has all its bits flipped. The places are drawn. Default `Infinity`. */
  readonly corruptEveryBytes?: number;
}

/** How much a socket reads ahead, and takes before it asks to wait. */
export const SOCKET_BUFFER_BYTES = 256 * 2 ** 10;
/** Timers are true to a millisecond: what is due in less than half of one is sent now. */
const EARLY_MS = 0.5;

const NOTHING = Buffer.alloc(0);

/** One direction of one connection: what was read from its source and has not reached its sink. */
export class Lane {
  readonly #line: Line;
  readonly #source: Duplex;
  readonly #sink: Duplex;
  #items: { bytes: Buffer; readonly last: (() => void) | undefined; readonly readMs: number }[] = [];
  #bytes = 0;
  #over = false;

  constructor(line: Line, source: Duplex, sink: Duplex, reset: () => void) {
    this.#line = line;
    this.#source = source;
    this.#sink = sink;
    let ended = false;
    source.on('data', (read: Buffer) => {
      if (this.#over) return;
      const { bytes, cut } = line.strike(read);
      this.#push(bytes, cut ? reset : undefined);
      this.#over ||= cut;
    });
    source.on('end', () => {
      ended = true;
      this.#push(NOTHING, () => sink.end());
    });
    // 'close' follows, and is told of it.
    source.on('error', () => {});
    source.on('close', (failed?: boolean) => {
      if (failed || !ended) this.#push(NOTHING, reset);
    });
    sink.on('drain', () => line.advance());
    sink.on('close', () => this.lose());
    line.lanes.add(this);
    line.advance();
  }

  /** When the next piece has arrived; `Infinity` while there is none that can. */
  get dueMs(): number {
    const { delayMs, bytesPerSecond, stalled } = this.#line.conditions;
    const [next] = this.#items;
    if (!next || stalled || this.#sink.writableNeedDrain) return Number.POSITIVE_INFINITY;
    const bytes = Math.min(next.bytes.length, this.#line.pieceBytes);
    return Math.max(next.readMs + delayMs, this.#line.freeMs) + (bytes / bytesPerSecond) * 1_000;
  }

  deliver(): void {
    const [next] = this.#items;
    if (!next) return;
    const piece = next.bytes.subarray(0, this.#line.pieceBytes);
    next.bytes = next.bytes.subarray(piece.length);
    this.#bytes -= piece.length;
    this.#line.bytes += piece.length;
    if (piece.length > 0) this.#sink.write(piece);
    if (next.bytes.length > 0) return;
    this.#items.shift();
    next.last?.();
  }

  /** Reads on, or stops for as long as nothing moves or as much is under way as may be. */
  readOrPause(): void {
    const { stalled } = this.#line.conditions;
    const paused = stalled || this.#sink.writableNeedDrain || this.#bytes >= this.#line.capacityBytes;
    if (paused === this.#source.isPaused()) return;
    if (paused) this.#source.pause();
    else this.#source.resume();
  }

  /** Throws away what is under way, and all that is read from here on. */
  lose(): void {
    this.#over = true;
    this.#items = [];
    this.#line.lanes.delete(this);
    this.#line.advance();
    this.#source.resume();
  }

  /** Takes bytes, and what is to happen when the last of them has arrived. */
  #push(bytes: Buffer, last?: () => void): void {
    if (this.#over) return;
    this.#items.push({ bytes, last, readMs: performance.now() });
    this.#bytes += bytes.length;
    this.#line.advance();
  }
}

/** One direction of all connections: a line that they share. */
export class Line {
  /** In turn: the one that has been served last comes last. */
  readonly lanes = new Set<Lane>();
  readonly cuts: Strikes;
  readonly corruptions: Strikes;
  conditions = { delayMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY, stalled: false };
  /** Bytes that have arrived. */
  bytes = 0;
  /** When the line has carried what it has begun to. */
  freeMs = 0;
  readonly #bufferBytes: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(bufferBytes: number, random: () => number) {
    this.#bufferBytes = bufferBytes;
    this.cuts = new Strikes(random);
    this.corruptions = new Strikes(random);
  }

  /** What a lane may send before it is another's turn: a millisecond's worth. */
  get pieceBytes(): number {
    return Math.ceil(this.conditions.bytesPerSecond / 1_000);
  }

  /** What a lane may have under way: no more than fits on the line, as the rest would wait here and not at the sender. */
  get capacityBytes(): number {
    const { delayMs, bytesPerSecond } = this.conditions;
    if (bytesPerSecond === Number.POSITIVE_INFINITY) return this.#bufferBytes;
    return Math.min(this.#bufferBytes, (bytesPerSecond * delayMs) / 1_000 + SOCKET_BUFFER_BYTES);
  }

  /** What is `undefined` stays as it is. */
  set({ cutEveryBytes, corruptEveryBytes, ...changes }: FaultConditions): void {
    const { delayMs, bytesPerSecond, stalled } = this.conditions;
    this.conditions = {
      delayMs: changes.delayMs ?? delayMs,
      bytesPerSecond: changes.bytesPerSecond ?? bytesPerSecond,
      stalled: changes.stalled ?? stalled,
    };
    if (cutEveryBytes !== undefined) this.cuts.repeat(cutEveryBytes);
    if (corruptEveryBytes !== undefined) this.corruptions.repeat(corruptEveryBytes);
    this.advance();
  }

  /** What becomes of bytes that are read: some are flipped, and a cut takes away what follows it. */
  strike(read: Buffer): { readonly bytes: Buffer; readonly cut: boolean } {
    const cutAt = this.cuts.next(read, 0);
    const bytes = cutAt === undefined ? read : read.subarray(0, cutAt + 1);
    for (let at = this.corruptions.next(bytes, 0); at !== undefined; at = this.corruptions.next(bytes, at + 1)) {
      bytes[at] = ~(bytes[at] as number);
    }
    return { bytes, cut: cutAt !== undefined };
  }

  /** Delivers what is due, sees to it that the rest will be, and reads on where there is room. */
  advance(): void {
    clearTimeout(this.#timer);
    const now = performance.now();
    let nextMs = Number.POSITIVE_INFINITY;
    for (const lane of this.lanes) {
      const { dueMs } = lane;
      if (dueMs > now + EARLY_MS) {
        nextMs = Math.min(nextMs, dueMs);
        continue;
      }
      this.freeMs = dueMs;
      lane.deliver();
      // The loop comes by again, after all others.
      this.lanes.delete(lane);
      this.lanes.add(lane);
    }
    for (const lane of this.lanes) lane.readOrPause();
    if (nextMs < Number.POSITIVE_INFINITY) {
      this.#timer = setTimeout(() => this.advance(), Math.min(nextMs - now, MAX_TIMER_MS));
    }
  }
}

/** Where a fault strikes in the bytes of a line: where it was told to, or wherever it draws. */
class Strikes {
  /** How many there have been. */
  count = 0;
  /** How many bytes pass before the one that is struck. */
  left = Number.POSITIVE_INFINITY;
  readonly #random: () => number;
  #everyBytes = Number.POSITIVE_INFINITY;

  constructor(random: () => number) {
    this.#random = random;
  }

  repeat(everyBytes: number): void {
    this.#everyBytes = everyBytes;
    this.#draw();
  }

  /** Which byte is struck first, from a place on, if any. Those after it have not been counted then. */
  next(bytes: Buffer, from: number): number | undefined {
    const at = from + this.left;
    this.left -= bytes.length - from;
    if (at >= bytes.length) return undefined;
    this.count++;
    this.#draw();
    return at;
  }

  /** Distances between what happens at random, so and so often on average, are distributed exponentially. */
  #draw(): void {
    const distance = -Math.log(1 - this.#random()) * this.#everyBytes;
    this.left = Number.isNaN(distance) ? this.#everyBytes : Math.floor(distance);
  }
}
