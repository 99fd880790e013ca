import { vi } from 'vitest';

/**
 * Runs a step whose timers go off as soon as everything else has been done, and waits for it: what takes seconds by the
 * clock takes none.
 */
export async function withoutWaiting<T>(step: () => Promise<T>): Promise<T> {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  try {
    let settled = false;
    const outcome = step().finally(() => {
      settled = true;
    });
    outcome.catch(() => {});
    while (!settled) await vi.advanceTimersByTimeAsync(100);
    return await outcome;
  } finally {
    vi.useRealTimers();
  }
}
