export interface BandwidthEstimateOptions {
  /**
   * For how long a transfer counts, in milliseconds: at least half as long, and never longer. A link that got slower is
   * noticed after that. Default: 60000.
   */
  readonly windowMs?: number;
  /**
   * Transfers of fewer bytes are not counted, as they tell the link's latency rather than its bandwidth. Default: 65536.
   */
  readonly minBytes?: number;
  /** A clock in milliseconds that never goes back. Default: `performance.now`. */
  readonly now?: () => number;
}

/**
 * The bandwidth of a link, from the transfers that happen anyway: the fastest of the last minute.
 *
 * The maximum and not the mean, because a transfer can be slower than the link for many reasons (it waited for the
 * sender, shared the link, began slowly), and faster for none. It is how BBR finds the bandwidth of a path: N. Cardwell,
 * Y. Cheng, C. S. Gunn, S. H. Yeganeh, V. Jacobson, "BBR: Congestion-Based Congestion Control", ACM Queue 14(5), 2016.
 * An estimate that is too high also is the harmless one: what is not compressed is sent as it always was.
 */
export class BandwidthEstimate {
  readonly #halfWindowMs: number;
  readonly #minBytes: number;
  readonly #now: () => number;
  // Two halves, each with its maximum, in place of a list of all transfers in the window.
  #half = Number.NEGATIVE_INFINITY;
  #current: number | undefined;
  #previous: number | undefined;

  constructor({ windowMs = 60_000, minBytes = 65_536, now = () => performance.now() }: BandwidthEstimateOptions = {}) {
    this.#halfWindowMs = windowMs / 2;
    this.#minBytes = minBytes;
    this.#now = now;
  }

  /**
   * Counts a transfer. Bytes as they were on the link, after compression, and the milliseconds they were on it: of a call,
   * those of request and response, and its time less the server's.
   */
  observe(bytes: number, ms: number): void {
    // Also what is NaN fails these; a transfer that took no time says nothing.
    if (!(bytes >= this.#minBytes && ms > 0)) return;
    this.#forget();
    this.#current = Math.max(this.#current ?? 0, (bytes * 1000) / ms);
  }

  /** `undefined` while nothing has been observed for a window. */
  get bytesPerSecond(): number | undefined {
    this.#forget();
    if (this.#previous === undefined) return this.#current;
    return Math.max(this.#previous, this.#current ?? 0);
  }

  #forget(): void {
    const half = Math.floor(this.#now() / this.#halfWindowMs);
    if (half === this.#half) return;
    this.#previous = half === this.#half + 1 ? this.#current : undefined;
    this.#current = undefined;
    this.#half = half;
  }
}
