import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CallRecorder, LatencyHistogram } from './statistics.js';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

describe('CallRecorder', () => {
  it('begins with nothing', () => {
    expect(new CallRecorder().read()).toEqual({
      requests: 0,
      inFlight: 0,
      succeeded: 0,
      failed: {},
      latencyMs: { mean: 0, p50: 0, p95: 0, p99: 0 },
      bytesSent: 0,
      bytesReceived: 0,
    });
  });

  it('counts calls that are under way, succeeded, and failed by code', () => {
    const calls = new CallRecorder();
    const [first, second, third] = [calls.begin(), calls.begin(), calls.begin(), calls.begin()];
    first?.();
    second?.('CANCELLED');
    third?.('CANCELLED');
    expect(calls.read()).toMatchObject({ requests: 4, inFlight: 1, succeeded: 1, failed: { CANCELLED: 2 } });
  });

  it('measures what succeeded, and nothing else', () => {
    const calls = new CallRecorder();
    for (const ms of [10, 20, 30]) {
      const finish = calls.begin();
      vi.advanceTimersByTime(ms);
      finish();
    }
    const failing = calls.begin();
    vi.advanceTimersByTime(60_000);
    failing('INTERNAL');
    const { mean, p50, p99 } = calls.read().latencyMs;
    expect(mean).toBe(20);
    expect(Math.abs(p50 / 20 - 1)).toBeLessThan(0.01);
    expect(Math.abs(p99 / 30 - 1)).toBeLessThan(0.01);
  });

  it('sums bytes and hands them on', () => {
    const calls = new CallRecorder();
    const bytes = new Uint8Array(5);
    expect(calls.sent(bytes)).toBe(bytes);
    expect(calls.received(bytes)).toBe(bytes);
    calls.sent(bytes);
    expect(calls.read()).toMatchObject({ bytesSent: 10, bytesReceived: 5 });
  });

  it('gives a snapshot, which later calls do not change', () => {
    const calls = new CallRecorder();
    calls.begin()('INTERNAL');
    const before = calls.read();
    calls.begin()('INTERNAL');
    expect(before.failed).toEqual({ INTERNAL: 1 });
  });
});

describe('LatencyHistogram', () => {
  it.each([0.001, 0.5, 12.3, 4_560, 3_600_000, 86_400_000])('is off by less than 1 %% of %d ms', (ms) => {
    const histogram = new LatencyHistogram();
    histogram.record(ms);
    expect(Math.abs(histogram.read().p50 - ms) / ms).toBeLessThan(0.01);
    expect(histogram.read().mean).toBe(ms);
  });

  it('counts more than a day as a day', () => {
    const histogram = new LatencyHistogram();
    histogram.record(1e12);
    expect(Math.abs(histogram.read().p50 / 86_400_000 - 1)).toBeLessThan(0.01);
  });

  it('tells percentiles apart', () => {
    const histogram = new LatencyHistogram();
    for (let ms = 1; ms <= 100; ms++) histogram.record(ms);
    const { mean, p50, p95, p99 } = histogram.read();
    expect([mean, p50, p95, p99].map(Math.round)).toEqual([51, 50, 95, 99]);
  });

  it('takes no time at all for the shortest', () => {
    const histogram = new LatencyHistogram();
    histogram.record(0);
    expect(histogram.read().p50).toBe(0.001);
  });
});
