import { describe, expect, it, vi } from 'vitest';
import { residentBytes, watchMemory } from './memory-watch.js';

describe('the memory of a process', () => {
  it.runIf(process.platform === 'linux')('is what it says itself', async () => {
    const bytes = (await residentBytes(process.pid)) ?? 0;
    expect(bytes / process.memoryUsage.rss()).toBeGreaterThan(0.5);
    expect(bytes / process.memoryUsage.rss()).toBeLessThan(2);
  });

  it('is unknown where there is no such process', async () => {
    expect(await residentBytes(undefined)).toBeUndefined();
    expect(await residentBytes(2 ** 30)).toBeUndefined();
  });
});

describe('the watch', () => {
  it('looks again and again, and speaks up once', async () => {
    vi.useFakeTimers();
    try {
      const readings = [10, undefined, 100, 101, 500];
      const looks: (number | undefined)[] = [];
      const onExceeded = vi.fn();
      const read = async () => {
        looks.push(readings[looks.length]);
        return looks.at(-1);
      };
      watchMemory({ limitBytes: 100, read, onExceeded, lookMs: 10 });
      await vi.advanceTimersByTimeAsync(1_000);
      expect(looks).toEqual([10, undefined, 100, 101]);
      expect(onExceeded).toHaveBeenCalledExactlyOnceWith(101);
    } finally {
      vi.useRealTimers();
    }
  });

  it('is over when it is told so, even in the middle of a look', async () => {
    vi.useFakeTimers();
    try {
      const onExceeded = vi.fn();
      let answer = (_bytes: number) => {};
      const read = vi.fn(() => new Promise<number>((resolve) => (answer = resolve)));
      const stop = watchMemory({ limitBytes: 1, read, onExceeded, lookMs: 10 });
      await vi.advanceTimersByTimeAsync(10);
      stop();
      answer(2);
      await vi.advanceTimersByTimeAsync(1_000);
      expect(read).toHaveBeenCalledOnce();
      expect(onExceeded).not.toHaveBeenCalled();
    } finally {
      vi.useRealTimers();
    }
  });
});
