import { CommError } from '../errors.js';

export interface TaskQueueOptions {
  /** How many tasks may run at once. */
  readonly concurrency: number;
  /** How many may wait beside those that run; past it a caller is refused at once. */
  readonly maxQueue: number;
  /** Milliseconds on a monotonic clock. Default: `performance.now`. */
  readonly now?: () => number;
}

/** A turn in the queue. Whoever holds it may run, and must `leave` when done. */
export interface Turn {
  /** Milliseconds that it took to get the turn. */
  readonly queueMs: number;
  leave(): void;
}

interface Waiter {
  admit(): void;
  refuse(error: CommError): void;
}

/** First in, first out, with a bounded number of waiting tasks that leave the queue when their signal is aborted. */
export class TaskQueue {
  readonly #concurrency: number;
  readonly #maxQueue: number;
  readonly #now: () => number;
  readonly #waiting = new Set<Waiter>();
  #running = 0;
  #closed = false;
  #whenIdle: (() => void) | undefined;
  /** Exponential moving average of how long a task takes; tells the refused when to come back. */
  #averageTaskMs = 0;

  constructor({ concurrency, maxQueue, now = () => performance.now() }: TaskQueueOptions) {
    if (!Number.isInteger(concurrency) || concurrency < 1) throw invalid('concurrency', '1 or more', concurrency);
    if (!Number.isInteger(maxQueue) || maxQueue < 0) throw invalid('maxQueue', '0 or more', maxQueue);
    this.#concurrency = concurrency;
    this.#maxQueue = maxQueue;
    this.#now = now;
  }

  /** How many tasks wait. */
  get length(): number {
    return this.#waiting.size;
  }

  /**
   * Waits for a turn.
   *
   * @throws CommError `RESOURCE_EXHAUSTED` (reason `QUEUE_FULL`, with `retryAfterMs`) when too many wait already;
   * the signal's reason when it is aborted first; `UNAVAILABLE` when the queue is closed first.
   */
  async enter(signal: AbortSignal): Promise<Turn> {
    const enteredMs = this.#now();
    if (this.#closed) throw closed();
    if (signal.aborted) throw this.#expired(signal, enteredMs);
    if (this.#running < this.#concurrency) return this.#begin(enteredMs);
    if (this.#waiting.size >= this.#maxQueue) throw this.#full();
    await new Promise<void>((resolve, reject) => {
      const abandon = () => settle(() => reject(this.#expired(signal, enteredMs)));
      const waiter: Waiter = { admit: () => settle(resolve), refuse: (error) => settle(() => reject(error)) };
      const settle = (outcome: () => void) => {
        this.#waiting.delete(waiter);
        signal.removeEventListener('abort', abandon);
        outcome();
      };
      this.#waiting.add(waiter);
      signal.addEventListener('abort', abandon);
    });
    return this.#begin(enteredMs, true);
  }

  /** Refuses all that wait and all that come, and waits for those that run. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const waiter of [...this.#waiting]) waiter.refuse(closed());
    if (this.#running > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
  }

  #begin(enteredMs: number, admitted = false): Turn {
    if (!admitted) this.#running++; // a waiter takes over the place of the task that admitted it
    const startedMs = this.#now();
    let left = false;
    const leave = () => {
      if (left) return;
      left = true;
      const tookMs = this.#now() - startedMs;
      this.#averageTaskMs = this.#averageTaskMs === 0 ? tookMs : 0.9 * this.#averageTaskMs + 0.1 * tookMs;
      const next = this.#waiting.values().next().value;
      if (next) next.admit();
      else if (--this.#running === 0) this.#whenIdle?.();
    };
    return { queueMs: startedMs - enteredMs, leave };
  }

  #expired(signal: AbortSignal, enteredMs: number): CommError {
    const waitedMs = Math.round(this.#now() - enteredMs);
    const reason = signal.reason instanceof CommError ? signal.reason : new CommError('CANCELLED', 'the call was cancelled');
    return new CommError(reason.code, `${reason.message} (after ${waitedMs} ms in the queue; the work never began)`, {
      cause: signal.reason,
    });
  }

  #full(): CommError {
    const retryAfterMs = Math.max(1, Math.round((this.#averageTaskMs * this.#waiting.size) / this.#concurrency));
    return new CommError(
      'RESOURCE_EXHAUSTED',
      `${this.#running} tasks run and ${this.#waiting.size} wait, as many as maxQueue allows; try again in ${retryAfterMs} ms`,
      { reason: 'QUEUE_FULL', retryAfterMs },
    );
  }
}

function closed(): CommError {
  return new CommError('UNAVAILABLE', 'the executor is being stopped', { reason: 'STOPPING' });
}

function invalid(option: string, allowed: string, got: number): CommError {
  return new CommError('INVALID_ARGUMENT', `${option} must be an integer, ${allowed}; it is ${got}`);
}
