/** A crash after that long is an accident, and not the model's habit. */
const STABLE_MS = 5_000;
/** Crashes in a row, with nothing done in between, after which a model is given up. */
const LOOP_CRASHES = 5;
/** The delay before the second restart in a row; it doubles with each one that follows. The first is at once. */
const FIRST_DELAY_MS = 500;
/** How long a model that was given up is left alone. */
export const COOL_DOWN_MS = 5 * 60_000;

/** Decides when a model whose process has ended is started again: at once, after a while, or not for now. Pure. */
export class CrashHistory {
  #inARow = 0;

  /** The model has answered a request. */
  worked(): void {
    this.#inARow = 0;
  }

  /**
   * The model's process has ended, or could not be started.
   *
   * @param upMs - How long it had been up.
   * @returns milliseconds until it is to be started again; `undefined` when it is to be given up.
   */
  crashed(upMs: number): number | undefined {
    this.#inARow = upMs >= STABLE_MS ? 1 : this.#inARow + 1;
    if (this.#inARow >= LOOP_CRASHES) {
      // After the cool-down one more crash is enough.
      this.#inARow = LOOP_CRASHES - 1;
      return undefined;
    }
    return this.#inARow === 1 ? 0 : FIRST_DELAY_MS * 2 ** (this.#inARow - 2);
  }
}
