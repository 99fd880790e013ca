import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Clock } from './clock.js';
import { withLock } from './exclusive-lock.js';

/** Time goes on by what is waited for, and at once; but heartbeats come when the test wants them. */
class FastClock implements Clock {
  nowMs = 0;
  beat = () => {};

  now(): number {
    return this.nowMs;
  }

  after(milliseconds: number, callback: () => void): () => void {
    if (milliseconds === 5_000) {
      this.beat = callback;
      return () => {};
    }
    const immediate = setImmediate(() => {
      this.nowMs += milliseconds;
      callback();
    });
    return () => clearImmediate(immediate);
  }
}

let folder: string;
let path: string;
let clock: FastClock;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'lock-'));
  path = join(folder, 'a/b.lock');
  clock = new FastClock();
});
afterEach(() => rmSync(folder, { recursive: true }));

it('lets one in at a time, and leaves nothing', async () => {
  let inside = 0;
  let most = 0;
  const one = () =>
    withLock(path, { clock }, async () => {
      inside += 1;
      most = Math.max(most, inside);
      await new Promise(setImmediate);
      inside -= 1;
    });
  await Promise.all(Array.from({ length: 10 }, one));
  expect(most).toBe(1);
  expect(readdirSync(join(folder, 'a'))).toEqual([]);
});

it('is released by what fails', async () => {
  await expect(withLock(path, { clock }, () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  expect(existsSync(path)).toBe(false);
});

it('is waited for no longer than the signal says', async () => {
  await withLock(path, { clock }, async () => {
    const controller = new AbortController();
    const waiting = withLock(path, { clock, signal: controller.signal }, async () => {});
    controller.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
  });
});

it('of a process that has ended is taken over at once', async () => {
  await withLock(path, { clock }, async () => {
    const holder = JSON.parse(readFileSync(path, 'utf8'));
    writeFileSync(path, JSON.stringify({ ...holder, pid: 2 ** 30 }));
    clock.nowMs = 0;
    await withLock(path, { clock }, async () => {});
    expect(clock.nowMs).toBe(0);
  });
});

it.each(['', 'damaged', '{"pid":1}', JSON.stringify({ pid: 2 ** 30, host: 'another' })])(
  'of a holder elsewhere (%j) is taken over after a minute of silence',
  async (holder) => {
    await withLock(path, { clock }, async () => {});
    writeFileSync(path, holder);
    await withLock(path, { clock }, async () => {});
    expect(clock.nowMs).toBeGreaterThan(60_000);
    expect(clock.nowMs).toBeLessThan(61_000);
  },
);

it('that is lost is told to its holder, who leaves that of the other alone', async () => {
  await withLock(path, { clock }, async (signal) => {
    writeFileSync(path, 'another');
    const aborted = new Promise((resolve) => signal.addEventListener('abort', resolve));
    clock.beat();
    await aborted;
    expect(signal.reason).toMatchObject({ code: 'SOURCE_UNAVAILABLE' });
  });
  expect(readFileSync(path, 'utf8')).toBe('another');
});
