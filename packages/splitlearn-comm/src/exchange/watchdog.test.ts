import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Watchdog } from './watchdog.js';

const IDLE_MS = 1_000;
const TIMEOUT_MS = 400;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(() => {
  vi.useRealTimers();
});

function watchdog(keepAlive = { idleMs: IDLE_MS, timeoutMs: TIMEOUT_MS }) {
  const told: string[] = [];
  const state = { busy: true };
  const dog = new Watchdog(keepAlive, {
    busy: () => state.busy,
    ask: () => told.push('ask'),
    giveUp: () => told.push('give up'),
  });
  return { dog, told, state };
}

describe('Watchdog', () => {
  it('asks a silent peer for a sign, and gives it up when there is none', () => {
    const { dog, told } = watchdog();
    dog.watch();
    vi.advanceTimersByTime(IDLE_MS - 1);
    expect(told).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(told).toEqual(['ask']);
    vi.advanceTimersByTime(TIMEOUT_MS - 1);
    expect(told).toEqual(['ask']);
    vi.advanceTimersByTime(1);
    expect(told).toEqual(['ask', 'give up']);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('asks nothing of a peer that gives signs by itself', () => {
    const { dog, told } = watchdog();
    dog.watch();
    for (let count = 0; count < 20; count++) {
      vi.advanceTimersByTime(IDLE_MS / 2);
      dog.progress();
    }
    expect(told).toEqual([]);
  });

  it('begins anew with an answer, however often one is needed', () => {
    const { dog, told } = watchdog();
    dog.watch();
    for (let count = 1; count <= 3; count++) {
      vi.advanceTimersByTime(IDLE_MS);
      expect(told).toHaveLength(count);
      vi.advanceTimersByTime(TIMEOUT_MS / 2);
      dog.progress();
      vi.advanceTimersByTime(TIMEOUT_MS / 2);
    }
    expect(told).toEqual(['ask', 'ask', 'ask']);
    vi.advanceTimersByTime(IDLE_MS + TIMEOUT_MS);
    expect(told.slice(3)).toEqual(['ask', 'give up']);
  });

  it('does not count signs from before something was awaited', () => {
    const { dog, told } = watchdog();
    dog.progress();
    dog.watch();
    vi.advanceTimersByTime(IDLE_MS);
    expect(told).toEqual(['ask']);
  });

  it('does nothing, and keeps no timer, while nothing is awaited', () => {
    const { dog, told, state } = watchdog();
    expect(vi.getTimerCount()).toBe(0);
    dog.watch();
    state.busy = false;
    vi.advanceTimersByTime(IDLE_MS);
    expect([told, vi.getTimerCount()]).toEqual([[], 0]);
    state.busy = true;
    dog.watch();
    vi.advanceTimersByTime(IDLE_MS);
    expect(told).toEqual(['ask']);
    state.busy = false;
    vi.advanceTimersByTime(TIMEOUT_MS);
    expect([told, vi.getTimerCount()]).toEqual([['ask'], 0]);
  });

  it('is not put off by further calls', () => {
    const { dog, told } = watchdog();
    dog.watch();
    for (let count = 0; count < 4; count++) {
      vi.advanceTimersByTime(IDLE_MS / 4);
      dog.watch();
      expect(vi.getTimerCount()).toBe(1);
    }
    expect(told).toEqual(['ask']);
    dog.watch();
    vi.advanceTimersByTime(TIMEOUT_MS);
    expect(told).toEqual(['ask', 'give up']);
  });

  it('is silent once it is stopped', () => {
    const { dog, told } = watchdog();
    dog.watch();
    dog.stop();
    expect(vi.getTimerCount()).toBe(0);
    vi.advanceTimersByTime(10 * IDLE_MS);
    expect(told).toEqual([]);
  });

  it.each([Number.POSITIVE_INFINITY, 2 ** 31])('does not watch at all for %d ms, which no timer can wait', (idleMs) => {
    const { dog } = watchdog({ idleMs, timeoutMs: TIMEOUT_MS });
    dog.watch();
    expect(vi.getTimerCount()).toBe(0);
  });
});
