import { MAX_TIMER_MS } from '../check-options.js';

/** One timer for the deadlines of many calls, most of which end long before: a timer for each would cost more than they do. */
export class Deadlines {
  readonly #expire: (nowMs: number) => number;
  #timer: NodeJS.Timeout | undefined;
  #nextMs = Number.POSITIVE_INFINITY;

  /** @param expire - Ends the calls whose time is up, and says when the next one's is; `Infinity` for never. */
  constructor(expire: (nowMs: number) => number) {
    this.#expire = expire;
  }

  /** There is a call whose time is up then, in milliseconds since the epoch. */
  add(deadlineMs: number): void {
    if (deadlineMs >= this.#nextMs) return;
    this.stop();
    this.#nextMs = deadlineMs;
    const leftMs = Math.max(0, deadlineMs - Date.now());
    this.#timer = setTimeout(() => this.#look(), Math.min(leftMs, MAX_TIMER_MS)).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#nextMs = Number.POSITIVE_INFINITY;
  }

  #look(): void {
    this.#nextMs = Number.POSITIVE_INFINITY;
    this.add(this.#expire(Date.now()));
  }
}
