import { describe, expect, it } from 'vitest';
import { BandwidthEstimate } from './bandwidth-estimate.js';

function estimate(options: { windowMs?: number; minBytes?: number } = {}) {
  const clock = { ms: 1234 };
  return { clock, bandwidth: new BandwidthEstimate({ ...options, now: () => clock.ms }) };
}

describe('BandwidthEstimate', () => {
  it('is unknown at first', () => {
    expect(new BandwidthEstimate().bytesPerSecond).toBeUndefined();
  });

  it('is that of the fastest transfer, because others were held up by something else than the link', () => {
    const { bandwidth } = estimate();
    bandwidth.observe(100_000, 100);
    expect(bandwidth.bytesPerSecond).toBe(1_000_000);
    bandwidth.observe(100_000, 20);
    bandwidth.observe(100_000, 400);
    expect(bandwidth.bytesPerSecond).toBe(5_000_000);
  });

  it('does not count what is small, or took no time, or is no number', () => {
    const { bandwidth } = estimate({ minBytes: 1000 });
    for (const [bytes, ms] of [
      [999, 1],
      [1000, 0],
      [1000, -1],
      [1000, Number.NaN],
      [Number.NaN, 1],
    ] as const) {
      bandwidth.observe(bytes, ms);
    }
    expect(bandwidth.bytesPerSecond).toBeUndefined();
    bandwidth.observe(1000, 1);
    expect(bandwidth.bytesPerSecond).toBe(1_000_000);
  });

  it('counts a transfer for half a window at least and a window at most, wherever in it it was', () => {
    for (let startMs = 0; startMs < 1000; startMs += 50) {
      const { clock, bandwidth } = estimate({ windowMs: 1000 });
      clock.ms = startMs;
      bandwidth.observe(1_000_000, 100);
      clock.ms = startMs + 100;
      bandwidth.observe(1_000_000, 1000);
      clock.ms = startMs + 500;
      expect(bandwidth.bytesPerSecond).toBe(10_000_000);
      bandwidth.observe(1_000_000, 500);
      clock.ms = startMs + 1000;
      expect(bandwidth.bytesPerSecond).toBe(2_000_000);
    }
  });

  it('is unknown again when nothing was observed for a window', () => {
    const { clock, bandwidth } = estimate({ windowMs: 1000 });
    bandwidth.observe(1_000_000, 100);
    clock.ms += 1000;
    expect(bandwidth.bytesPerSecond).toBeUndefined();
  });
});
