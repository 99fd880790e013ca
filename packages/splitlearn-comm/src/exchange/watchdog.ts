import { MAX_TIMER_MS } from '../check-options.js';

/** When a silent peer is asked whether it is there, and when it is given up. */
export interface KeepAlive {
  /** Milliseconds without any sign of the peer, while something is awaited of it, until it is asked for one. */
  readonly idleMs: number;
  /** Milliseconds after that until it is given up. */
  readonly timeoutMs: number;
}

export interface WatchdogHooks {
  /** Whether anything is awaited of the peer: an answer, or that it takes what waits to be sent. */
  busy(): boolean;
  ask(): void;
  giveUp(): void;
}

/** Notices a peer that is gone, or that neither sends nor takes anything, while somebody waits for it. */
export class Watchdog {
  readonly #keepAlive: KeepAlive;
  readonly #hooks: WatchdogHooks;
  #timer: NodeJS.Timeout | undefined;
  #seen = false;
  #asked = false;

  constructor(keepAlive: KeepAlive, hooks: WatchdogHooks) {
    this.#keepAlive = keepAlive;
    this.#hooks = hooks;
  }

  /** A sign of the peer: bytes have come, or have been taken. */
  progress(): void {
    this.#seen = true;
  }

  /** Something is awaited from here on. Nothing is done, and no timer kept, while nothing is. */
  watch(): void {
    if (this.#timer || this.#keepAlive.idleMs > MAX_TIMER_MS) return;
    this.#seen = false;
    this.#asked = false;
    this.#wait(this.#keepAlive.idleMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #wait(delayMs: number): void {
    this.#timer = setTimeout(() => this.#look(), delayMs).unref();
  }

  #look(): void {
    this.#timer = undefined;
    if (!this.#hooks.busy()) return;
    if (this.#seen) {
      this.watch();
    } else if (!this.#asked) {
      this.#asked = true;
      this.#hooks.ask();
      this.#wait(this.#keepAlive.timeoutMs);
    } else {
      this.#hooks.giveUp();
    }
  }
}
