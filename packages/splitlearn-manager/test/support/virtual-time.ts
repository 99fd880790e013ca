// A clock, timers and turns of the event loop that only go on when a test says so.

interface Timer {
  readonly dueMs: number;
  readonly callback: () => void;
}

export class VirtualTime {
  nowMs = 1_000;
  #timers: Timer[] = [];
  #deferred: (() => void)[] = [];

  /** What is given to what is tested. */
  readonly seams = {
    now: () => this.nowMs,
    setTimer: (callback: () => void, ms: number) => {
      const timer = { dueMs: this.nowMs + ms, callback };
      this.#timers.push(timer);
      return () => {
        this.#timers = this.#timers.filter((other) => other !== timer);
      };
    },
    defer: (callback: () => void) => {
      this.#deferred.push(callback);
    },
  };

  /** How many timers are set. */
  get timers(): number {
    return this.#timers.length;
  }

  /** Ends the turn of the event loop, and lets time pass, timer by timer. */
  pass(ms: number): void {
    const endMs = this.nowMs + ms;
    for (;;) {
      for (const callback of this.#deferred.splice(0)) callback();
      const next = this.#timers.toSorted((one, other) => one.dueMs - other.dueMs)[0];
      if (!next || next.dueMs > endMs) break;
      this.#timers = this.#timers.filter((other) => other !== next);
      this.nowMs = Math.max(this.nowMs, next.dueMs);
      next.callback();
    }
    this.nowMs = endMs;
  }
}
