import { setTimeout as sleep } from 'node:timers/promises';
import { assertInteger, assertMs, MAX_TIMER_MS } from '../check-options.js';
import { CommError } from '../errors.js';
import { abortError } from '../signals.js';

/** Decides whether and when a failed call is made again. A call is retried only where its error is `retryable`. */
export interface RetryStrategy {
  /**
   * @param attempt - How many attempts have failed: 1 after the first.
   * @returns milliseconds to wait before the next attempt; `undefined` to give up.
   */
  nextDelayMs(attempt: number, error: CommError): number | undefined;
}

/** Every call is made once: the default, because only you know whether your function may run twice. */
export class NoRetry implements RetryStrategy {
  nextDelayMs(): undefined {
    return undefined;
  }
}

export interface FixedDelayOptions {
  /** How often a call is made at the most, the first time included. Default 3. */
  readonly maxAttempts?: number;
  /** Milliseconds between two attempts. Default 200. */
  readonly delayMs?: number;
}

/** The same wait before each attempt. */
export class FixedDelay implements RetryStrategy {
  readonly #maxAttempts: number;
  readonly #delayMs: number;

  constructor({ maxAttempts = 3, delayMs = 200 }: FixedDelayOptions = {}) {
    assertInteger('maxAttempts', maxAttempts, 1);
    assertMs('delayMs', delayMs);
    this.#maxAttempts = maxAttempts;
    this.#delayMs = delayMs;
  }

  nextDelayMs(attempt: number): number | undefined {
    return attempt < this.#maxAttempts ? this.#delayMs : undefined;
  }
}

export interface ExponentialBackoffOptions {
  /** How often a call is made at the most, the first time included. Default 4. */
  readonly maxAttempts?: number;
  /** Upper bound of the first wait, in milliseconds; it doubles with each attempt. Default 100. */
  readonly initialDelayMs?: number;
  /** Upper bound of every wait, in milliseconds. Default 5000. */
  readonly maxDelayMs?: number;
  /** A number from 0 to 1. Default `Math.random`. */
  readonly random?: () => number;
}

/**
 * Waits a random time below a bound that doubles: exponential back-off with full jitter, so that clients which failed
 * together do not come back together (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
 */
export class ExponentialBackoff implements RetryStrategy {
  readonly #options: Required<ExponentialBackoffOptions>;

  constructor(options: ExponentialBackoffOptions = {}) {
    const { maxAttempts = 4, initialDelayMs = 100, maxDelayMs = 5_000, random = Math.random } = options;
    assertInteger('maxAttempts', maxAttempts, 1);
    assertMs('initialDelayMs', initialDelayMs);
    assertMs('maxDelayMs', maxDelayMs);
    this.#options = { maxAttempts, initialDelayMs, maxDelayMs, random };
  }

  nextDelayMs(attempt: number): number | undefined {
    const { maxAttempts, initialDelayMs, maxDelayMs, random } = this.#options;
    if (attempt >= maxAttempts) return undefined;
    return random() * Math.min(maxDelayMs, initialDelayMs * 2 ** (attempt - 1));
  }
}

/** What a failure costs and a success earns (https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs). */
const FULL_BUDGET = 100;
const SUCCESS_EARNS = 0.1;

/** Keeps a client from answering an outage with a storm of retries: while half of its budget is spent, none are made. */
export class RetryBudget {
  #left = FULL_BUDGET;

  get allows(): boolean {
    return this.#left > FULL_BUDGET / 2;
  }

  failed(): void {
    this.#left = Math.max(0, this.#left - 1);
  }

  succeeded(): void {
    this.#left = Math.min(FULL_BUDGET, this.#left + SUCCESS_EARNS);
  }
}

/** A connection that was lost or fell silent leaves open whether the server has begun the call. */
const MAY_HAVE_BEGUN = new Set(['CONNECTION_LOST', 'STALLED']);

export interface RetryTiming {
  /** When the call's time is up, in milliseconds since the epoch; `Infinity` for never. */
  readonly deadlineMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Whether the call may run twice. Otherwise it is made again only where the server cannot have begun it, or says so. */
  readonly idempotent?: boolean | undefined;
  readonly budget?: RetryBudget;
  readonly wait?: (delayMs: number, signal?: AbortSignal) => Promise<void>;
  readonly now?: () => number;
}

/**
 * Makes attempts until one succeeds, the strategy gives up, or the next could not begin before the deadline. Where the
 * server said when to come back, no attempt is made sooner.
 */
export async function withRetry<T>(
  strategy: RetryStrategy,
  timing: RetryTiming,
  attemptCall: () => Promise<T>,
): Promise<T> {
  const { deadlineMs, signal, idempotent = false, budget, wait = abortableSleep, now = Date.now } = timing;
  for (let attempt = 1; ; attempt++) {
    try {
      const result = await attemptCall();
      budget?.succeeded();
      return result;
    } catch (error) {
      if (!(error instanceof CommError) || !error.retryable) throw error;
      budget?.failed();
      if (budget?.allows === false) throw error;
      if (!idempotent && MAY_HAVE_BEGUN.has(error.reason ?? '')) throw error;
      const strategyDelayMs = strategy.nextDelayMs(attempt, error);
      if (strategyDelayMs === undefined) throw error;
      const delayMs = Math.max(strategyDelayMs, error.retryAfterMs ?? 0);
      if (delayMs > MAX_TIMER_MS || now() + delayMs >= deadlineMs) throw error;
      await wait(delayMs, signal);
    }
  }
}

async function abortableSleep(delayMs: number, signal?: AbortSignal): Promise<void> {
  try {
    await sleep(delayMs, undefined, signal ? { signal } : {});
  } catch (error) {
    throw signal?.aborted ? abortError(signal, 'the call was cancelled while it waited to be retried') : error;
  }
}
