/** How much a new request counts in the mean: 1/16, so that it follows the last few dozen. */
const GAIN = 1 / 16;
/** The time in which the mean of a target that has no requests loses half of its value, in milliseconds. */
const HALF_LIFE_MS = 10_000;

/** How long a target takes for one request, as an exponentially weighted mean of the recent ones. */
export class ServiceTime {
  #meanMs: number | undefined;
  #lastMs = 0;

  record(durationMs: number, nowMs: number): void {
    this.#meanMs = this.#meanMs === undefined ? durationMs : this.#meanMs + (durationMs - this.#meanMs) * GAIN;
    this.#lastMs = nowMs;
  }

  /**
   * In milliseconds; `undefined` where it is not known.
   *
   * @param idle - The target has no requests. What it was when it last had some counts for less and less, so that one that
   * was slow once is tried again.
   */
  read(nowMs: number, idle: boolean): number | undefined {
    if (this.#meanMs === undefined || !idle) return this.#meanMs;
    return this.#meanMs * 0.5 ** (Math.max(0, nowMs - this.#lastMs) / HALF_LIFE_MS);
  }
}
