export interface SustainedOptions {
  /** Above it a value is high. It is low again below half of it. */
  readonly limit: number;
  /** Milliseconds that it has to be high for. */
  readonly afterMs: number;
  /** Milliseconds that it has to be low for. */
  readonly recoverAfterMs: number;
}

/**
 * Whether something has been high for a while. It takes a while below half of the limit until it is not any more, so that
 * a value about the limit makes it change once, and not every second. Pure.
 */
export class Sustained {
  readonly #options: SustainedOptions;
  #active = false;
  #sinceMs = 0;
  /** Since when the value has been on the other side. */
  #changingSinceMs: number | undefined;
  #value = 0;

  constructor(options: SustainedOptions) {
    this.#options = options;
  }

  get active(): boolean {
    return this.#active;
  }

  /** The last value. */
  get value(): number {
    return this.#value;
  }

  /** Since when it has been high, where it is active. */
  get sinceMs(): number {
    return this.#sinceMs;
  }

  /** @param value - What it was from `fromMs` to `nowMs`. */
  sample(value: number, fromMs: number, nowMs: number): void {
    const { limit, afterMs, recoverAfterMs } = this.#options;
    this.#value = value;
    const otherSide = this.#active ? value < limit / 2 : value > limit;
    if (!otherSide) {
      this.#changingSinceMs = undefined;
      return;
    }
    this.#changingSinceMs ??= fromMs;
    if (nowMs - this.#changingSinceMs < (this.#active ? recoverAfterMs : afterMs)) return;
    this.#active = !this.#active;
    this.#sinceMs = this.#changingSinceMs;
    this.#changingSinceMs = undefined;
  }
}

/** How calls have ended, counted from any beginning: the numbers only grow. */
export interface CallCounts {
  /** All that have ended. */
  readonly finished: number;
  /** Those that were refused with `RESOURCE_EXHAUSTED`. */
  readonly refused: number;
  /** Those that failed by a fault of the server, and not of the caller. */
  readonly failed: number;
}

/** The share of calls that ended in one way, over so many of them that it says something. Pure. */
export class CallShare {
  readonly sustained: Sustained;
  readonly #minCalls: number;
  readonly #quietMs: number;
  #finished: number;
  #part: number;
  #fromMs: number;

  /** @param part - Of `finished` calls, those that count, at `nowMs`. */
  constructor(
    options: SustainedOptions & { readonly minCalls: number },
    finished: number,
    part: number,
    nowMs: number,
  ) {
    this.sustained = new Sustained(options);
    this.#minCalls = options.minCalls;
    this.#quietMs = options.afterMs;
    this.#finished = finished;
    this.#part = part;
    this.#fromMs = nowMs;
  }

  sample(finished: number, part: number, nowMs: number): void {
    const calls = finished - this.#finished;
    const enough = calls >= this.#minCalls;
    // So few calls say nothing, until for so long there have been no more that all is quiet.
    if (!enough && nowMs - this.#fromMs < this.#quietMs) return;
    this.sustained.sample(enough ? (part - this.#part) / calls : 0, this.#fromMs, nowMs);
    this.#finished = finished;
    this.#part = part;
    this.#fromMs = nowMs;
  }
}
