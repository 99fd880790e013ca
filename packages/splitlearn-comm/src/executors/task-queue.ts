import { assertInteger } from '../check-options.js';
import { CommError } from '../errors.js';
import { NumberMap } from '../number-map.js';
import { abortError, onAbort } from '../signals.js';

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

interface Task {
  readonly signal: AbortSignal;
  whenLeft?: () => void;
}

/** How long `close` waits for a task that has been told to stop: it may never heed that. */
const HEED_MS = 1_000;

/** First in, first out, with a bounded number of waiting tasks that leave the queue when their signal is aborted. */
export class TaskQueue {
  readonly #concurrency: number;
  readonly #maxQueue: number;
  readonly #now: () => number;
  /** By the number of their turn. */
  readonly #waiting = new NumberMap<Waiter>();
  readonly #running = new NumberMap<Task>();
  #lastTurn = 0;
  /** None that waits has a lower number. */
  #nextTurn = 1;
  #closing: Promise<void> | undefined;
  /** Exponential moving average of how long a task takes; tells the refused when to come back. */
  #averageTaskMs = 0;

  constructor({ concurrency, maxQueue, now = () => performance.now() }: TaskQueueOptions) {
    assertInteger('concurrency', concurrency, 1);
    assertInteger('maxQueue', maxQueue, 0);
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
    if (this.#closing) throw closed();
    if (signal.aborted) throw this.#expired(signal, enteredMs);
    if (this.#running.size < this.#concurrency) return this.#begin(signal, enteredMs);
    if (this.#waiting.size >= this.#maxQueue) throw this.#full();
    const number = ++this.#lastTurn;
    const turn = await new Promise<Turn>((resolve, reject) => {
      const waiter: Waiter = {
        admit: () => settle(() => resolve(this.#begin(signal, enteredMs))),
        refuse: (error) => settle(() => reject(error)),
      };
      const ignore = onAbort(signal, () => waiter.refuse(this.#expired(signal, enteredMs)));
      const settle = (outcome: () => void) => {
        this.#waiting.delete(number);
        ignore();
        outcome();
      };
      this.#waiting.set(number, waiter);
    });
    if (!signal.aborted) return turn;
    turn.leave();
    throw this.#expired(signal, enteredMs);
  }

  /**
   * Refuses all that wait and all that come, and waits for those that run; for one whose signal is aborted no more than
   * a second.
   */
  close(): Promise<void> {
    this.#closing ??= Promise.all(this.#running.entries().map(([, task]) => gone(task))).then(() => {});
    for (const [, waiter] of this.#waiting.entries()) waiter.refuse(closed());
    return this.#closing;
  }

  #begin(signal: AbortSignal, enteredMs: number): Turn {
    const startedMs = this.#now();
    const task: Task = { signal };
    const number = ++this.#lastTurn;
    this.#running.set(number, task);
    const leave = () => {
      if (!this.#running.delete(number)) return;
      const tookMs = this.#now() - startedMs;
      this.#averageTaskMs = this.#averageTaskMs === 0 ? tookMs : 0.9 * this.#averageTaskMs + 0.1 * tookMs;
      task.whenLeft?.();
      this.#admitNext();
    };
    return { queueMs: startedMs - enteredMs, leave };
  }

  #admitNext(): void {
    while (this.#nextTurn < this.#lastTurn && !this.#waiting.has(this.#nextTurn)) this.#nextTurn++;
    this.#waiting.get(this.#nextTurn)?.admit();
  }

  #expired(signal: AbortSignal, enteredMs: number): CommError {
    const waitedMs = Math.round(this.#now() - enteredMs);
    const { code, message, reason } = abortError(signal);
    return new CommError(code, `${message} (after ${waitedMs} ms in the queue; the work never began)`, {
      cause: signal.reason,
      ...(reason !== undefined && { reason }),
    });
  }

  #full(): CommError {
    // Until all that are here have had their turn.
    const aheadMs = (this.#averageTaskMs * (this.#waiting.size + 1)) / this.#concurrency;
    const retryAfterMs = Math.max(1, Math.round(aheadMs));
    return new CommError(
      'RESOURCE_EXHAUSTED',
      `${this.#running.size} tasks run and ${this.#waiting.size} wait, as many as maxQueue allows; try again in ${retryAfterMs} ms`,
      { reason: 'QUEUE_FULL', retryAfterMs },
    );
  }
}

/** Resolves when a task has left, or has been told to stop and has not heeded it. */
function gone(task: Task): Promise<void> {
  return new Promise((resolve) => {
    let overdue: NodeJS.Timeout | undefined;
    const giveUp = () => {
      overdue = setTimeout(resolve, HEED_MS);
    };
    const ignore = onAbort(task.signal, giveUp);
    if (task.signal.aborted) giveUp();
    task.whenLeft = () => {
      ignore();
      clearTimeout(overdue);
      resolve();
    };
  });
}

function closed(): CommError {
  return new CommError('UNAVAILABLE', 'the executor is being stopped', { reason: 'STOPPING' });
}
