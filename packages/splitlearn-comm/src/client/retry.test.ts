import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { rejection } from '../../test/support/deferred.js';
import { CommError } from '../errors.js';
import { ExponentialBackoff, FixedDelay, NoRetry, RetryBudget, type RetryTiming, withRetry } from './retry.js';

const unavailable = new CommError('UNAVAILABLE', 'away');
const busy = (retryAfterMs: number) => new CommError('RESOURCE_EXHAUSTED', 'busy', { retryAfterMs });

/** Time that passes only by waiting, and a record of the waits. */
function timing(options: Partial<RetryTiming> = {}) {
  let nowMs = 1_000;
  const waits: number[] = [];
  const wait = async (delayMs: number) => {
    waits.push(delayMs);
    nowMs += delayMs;
  };
  return { waits, timing: { deadlineMs: Number.POSITIVE_INFINITY, wait, now: () => nowMs, ...options } };
}

/** A call that fails with these errors, one after the other, and then succeeds. */
function failing(...errors: unknown[]) {
  const call = vi.fn(async () => 'answer');
  for (const error of errors) call.mockRejectedValueOnce(error);
  return call;
}

describe('withRetry', () => {
  it('makes a call that succeeds once', async () => {
    const call = failing();
    expect(await withRetry(new FixedDelay(), timing().timing, call)).toBe('answer');
    expect(call).toHaveBeenCalledOnce();
  });

  it('makes a call again until it succeeds', async () => {
    const { waits, timing: time } = timing();
    expect(await withRetry(new FixedDelay({ delayMs: 7 }), time, failing(unavailable, unavailable))).toBe('answer');
    expect(waits).toEqual([7, 7]);
  });

  it('gives up with the last error when the strategy does', async () => {
    const last = new CommError('UNAVAILABLE', 'still away');
    const call = failing(unavailable, unavailable, last);
    expect(await rejection(withRetry(new FixedDelay({ maxAttempts: 3 }), timing().timing, call))).toBe(last);
    expect(call).toHaveBeenCalledTimes(3);
  });

  it.each([
    ['an error that will not go away', new CommError('INVALID_ARGUMENT', 'wrong')],
    ['a server that is busy and does not say until when', new CommError('RESOURCE_EXHAUSTED', 'too large')],
    ['a deadline that has passed', new CommError('DEADLINE_EXCEEDED', 'late')],
    ['what is no CommError', new TypeError('a bug')],
  ])('never retries %s', async (_, error) => {
    const call = failing(error);
    expect(await rejection(withRetry(new FixedDelay(), timing().timing, call))).toBe(error);
    expect(call).toHaveBeenCalledOnce();
  });

  it('waits at least as long as the server asked for', async () => {
    const { waits, timing: time } = timing();
    await withRetry(new FixedDelay({ delayMs: 50 }), time, failing(busy(400), busy(3)));
    expect(waits).toEqual([400, 50]);
  });

  it('makes no attempt that could not begin before the deadline', async () => {
    const { waits, timing: time } = timing({ deadlineMs: 1_250 });
    const call = failing(unavailable, unavailable, unavailable);
    expect(await rejection(withRetry(new FixedDelay({ maxAttempts: 9, delayMs: 100 }), time, call))).toBe(unavailable);
    expect(waits).toEqual([100, 100]);
  });

  it('does not wait for a server that asks for longer than any timer runs', async () => {
    const { waits, timing: time } = timing();
    const error = busy(2 ** 31);
    expect(await rejection(withRetry(new FixedDelay(), time, failing(error)))).toBe(error);
    expect(waits).toEqual([]);
  });

  it('tells the strategy how many attempts have failed, and of what', async () => {
    const nextDelayMs = vi.fn(() => 0);
    await withRetry({ nextDelayMs }, timing().timing, failing(unavailable, busy(1)));
    expect(nextDelayMs.mock.calls).toEqual([
      [1, unavailable],
      [2, expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' })],
    ]);
  });

  it.each<[string, unknown, object]>([
    ['CANCELLED', undefined, { code: 'CANCELLED', message: 'the call was cancelled while it waited to be retried' }],
    [
      'the signal’s own error',
      new CommError('DEADLINE_EXCEEDED', 'late'),
      { code: 'DEADLINE_EXCEEDED', message: 'late' },
    ],
  ])('ends a wait with %s when its signal is aborted', async (_, reason, expected) => {
    const controller = new AbortController();
    const { signal } = controller;
    const call = vi.fn(async () => {
      queueMicrotask(() => controller.abort(reason));
      throw unavailable;
    });
    const retried = withRetry(
      new FixedDelay({ delayMs: 3_600_000 }),
      { deadlineMs: Number.POSITIVE_INFINITY, signal },
      call,
    );
    expect(await rejection(retried)).toMatchObject(expected);
    expect(call).toHaveBeenCalledOnce();
  });
});

describe('a call that may have begun', () => {
  const lost = (reason: string) => new CommError('UNAVAILABLE', 'lost', { reason });

  it.each(['CONNECTION_LOST', 'STALLED'])('is not made again after %s', async (reason) => {
    const call = failing(lost(reason));
    const { waits, timing: time } = timing();
    expect(await rejection(withRetry(new FixedDelay(), time, call))).toMatchObject({ reason });
    expect(
      await rejection(withRetry(new FixedDelay(), { ...time, idempotent: false }, failing(lost(reason)))),
    ).toBeDefined();
    expect(call).toHaveBeenCalledOnce();
    expect(waits).toEqual([]);
  });

  it.each(['CONNECTION_LOST', 'STALLED'])('is made again after %s where it may run twice', async (reason) => {
    const call = failing(lost(reason), lost(reason));
    expect(await withRetry(new FixedDelay(), timing({ idempotent: true }).timing, call)).toBe('answer');
    expect(call).toHaveBeenCalledTimes(3);
  });

  it.each(['NOT_SENT', 'STOPPING', 'WORKER_CRASHED'])('is made again after %s in any case', async (reason) => {
    for (const idempotent of [true, false]) {
      const call = failing(lost(reason));
      expect(await withRetry(new FixedDelay(), timing({ idempotent }).timing, call)).toBe('answer');
      expect(call).toHaveBeenCalledTimes(2);
    }
  });

  it('is not made again when the first loss was harmless and the next is not', async () => {
    const call = failing(lost('NOT_SENT'), lost('CONNECTION_LOST'));
    const error = await rejection(withRetry(new FixedDelay({ maxAttempts: 9 }), timing().timing, call));
    expect(error).toMatchObject({ reason: 'CONNECTION_LOST' });
    expect(call).toHaveBeenCalledTimes(2);
  });
});

describe('a budget', () => {
  const noWait = new FixedDelay({ maxAttempts: 1_000, delayMs: 0 });
  const never = () => vi.fn(() => Promise.reject(unavailable));

  it('is for 49 retries in an outage, over all calls', async () => {
    const budget = new RetryBudget();
    const first = never();
    await rejection(withRetry(new FixedDelay({ maxAttempts: 30, delayMs: 0 }), timing({ budget }).timing, first));
    expect(first).toHaveBeenCalledTimes(30);
    const second = never();
    expect(await rejection(withRetry(noWait, timing({ budget }).timing, second))).toBe(unavailable);
    expect(second).toHaveBeenCalledTimes(20);
    const third = never();
    await rejection(withRetry(noWait, timing({ budget }).timing, third));
    expect(third).toHaveBeenCalledOnce();
  });

  it('is earned back by ten successes for each failure', async () => {
    const budget = new RetryBudget();
    await rejection(withRetry(noWait, timing({ budget }).timing, never()));
    expect(budget.allows).toBe(false);
    const succeed = async (times: number) => {
      for (let call = 0; call < times; call++) await withRetry(noWait, timing({ budget }).timing, failing());
    };
    // For the next failure, and for being above the half: sums of tenths are not exact.
    await succeed(12);
    const call = failing(unavailable);
    expect(await withRetry(noWait, timing({ budget }).timing, call)).toBe('answer');
    expect(call).toHaveBeenCalledTimes(2);
    const next = never();
    await rejection(withRetry(noWait, timing({ budget }).timing, next));
    expect(next).toHaveBeenCalledOnce();
  });

  it('is never more than it was at first', async () => {
    const budget = new RetryBudget();
    for (let success = 0; success < 5_000; success++) budget.succeeded();
    const call = never();
    await rejection(withRetry(noWait, timing({ budget }).timing, call));
    expect(call).toHaveBeenCalledTimes(50);
  });

  it('is not in debt after a long outage', () => {
    const budget = new RetryBudget();
    for (let failure = 0; failure < 10_000; failure++) budget.failed();
    for (let success = 0; success < 502; success++) budget.succeeded();
    expect(budget.allows).toBe(true);
  });

  it('is spent by failures that could be retried, and by no others', async () => {
    const budget = new RetryBudget();
    for (let call = 0; call < 200; call++) {
      await rejection(withRetry(noWait, timing({ budget }).timing, failing(new CommError('INVALID_ARGUMENT', 'x'))));
    }
    expect(budget.allows).toBe(true);
    for (let call = 0; call < 50; call++) {
      await rejection(withRetry(new NoRetry(), timing({ budget }).timing, failing(unavailable)));
    }
    expect(budget.allows).toBe(false);
  });
});

describe('a deadline', () => {
  it('is that of all attempts together, with the time that they take themselves', async () => {
    let nowMs = 1_000;
    const wait = async (delayMs: number) => {
      nowMs += delayMs;
    };
    const call = vi.fn(async () => {
      nowMs += 300;
      throw unavailable;
    });
    const time: RetryTiming = { deadlineMs: 2_000, wait, now: () => nowMs };
    expect(await rejection(withRetry(new FixedDelay({ maxAttempts: 99, delayMs: 100 }), time, call))).toBe(unavailable);
    // Attempts begin at 1000, 1400 and 1800; the fourth would at 2200.
    expect(call).toHaveBeenCalledTimes(3);
    expect(nowMs).toBe(2_100);
  });
});

describe('NoRetry', () => {
  it('never makes a call again', () => {
    expect(new NoRetry().nextDelayMs()).toBe(undefined);
  });
});

describe('FixedDelay', () => {
  it('waits 200 ms, twice, unless told otherwise', () => {
    const strategy = new FixedDelay();
    expect([1, 2, 3].map((attempt) => strategy.nextDelayMs(attempt))).toEqual([200, 200, undefined]);
  });
});

describe('ExponentialBackoff', () => {
  it('doubles the bound of its waits up to the greatest', () => {
    const strategy = new ExponentialBackoff({
      maxAttempts: 7,
      initialDelayMs: 100,
      maxDelayMs: 1_000,
      random: () => 1,
    });
    expect([1, 2, 3, 4, 5, 6, 7].map((attempt) => strategy.nextDelayMs(attempt))).toEqual([
      100,
      200,
      400,
      800,
      1_000,
      1_000,
      undefined,
    ]);
  });

  it('waits a random part of the bound', () => {
    const strategy = new ExponentialBackoff({ initialDelayMs: 100, random: () => 0.25 });
    expect(strategy.nextDelayMs(2)).toBe(50);
  });

  it('stays within its bounds for ever, and ends', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 2_000 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (maxAttempts, random) => {
          const strategy = new ExponentialBackoff({ maxAttempts, random: () => random });
          for (let attempt = 1; attempt < maxAttempts; attempt++) {
            const delayMs = strategy.nextDelayMs(attempt);
            expect(delayMs).toBeGreaterThanOrEqual(0);
            expect(delayMs).toBeLessThanOrEqual(5_000);
          }
          expect(strategy.nextDelayMs(maxAttempts)).toBe(undefined);
        },
      ),
      { numRuns: 20 },
    );
  });

  it('takes undefined for not given, so that it ends in any case', () => {
    const strategy = new ExponentialBackoff({ maxAttempts: undefined as unknown as number });
    expect(strategy.nextDelayMs(4)).toBe(undefined);
  });
});

describe('a strategy cannot be made with', () => {
  it.each<[string, () => unknown, string]>([
    ['no number of attempts', () => new ExponentialBackoff({ maxAttempts: Number.NaN }), 'maxAttempts'],
    ['attempts without end', () => new FixedDelay({ maxAttempts: Number.POSITIVE_INFINITY }), 'maxAttempts'],
    ['no attempt', () => new FixedDelay({ maxAttempts: 0 }), 'maxAttempts'],
    ['a negative wait', () => new FixedDelay({ delayMs: -1 }), 'delayMs'],
    ['a first wait that is none', () => new ExponentialBackoff({ initialDelayMs: Number.NaN }), 'initialDelayMs'],
    ['a greatest wait that is none', () => new ExponentialBackoff({ maxDelayMs: -5 }), 'maxDelayMs'],
  ])('%s', (_, make, option) => {
    expect(make).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(option) }),
    );
  });
});
