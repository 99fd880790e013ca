import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { SendBuffers } from './send-buffers.js';

const KIB = 1024;
const MIB = 1024 * KIB;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
});
afterEach(() => {
  vi.useRealTimers();
});

describe('a buffer', () => {
  it.each([
    [16 * KIB, 16 * KIB],
    [16 * KIB + 1, 32 * KIB],
    [100_000, 128 * KIB],
    [32 * MIB - 1, 32 * MIB],
    [32 * MIB, 32 * MIB],
  ])('of %d bytes lies in memory of %d', (bytes, size) => {
    const { byteLength, byteOffset, buffer } = new SendBuffers().take(bytes);
    expect([byteLength, byteOffset, buffer.byteLength]).toEqual([bytes, 0, size]);
  });

  it('is used again for what needs as much, and not for what needs more or less', () => {
    const buffers = new SendBuffers();
    const first = buffers.take(100_000);
    buffers.giveBack(first);
    expect(buffers.take(128 * KIB + 1).buffer).not.toBe(first.buffer);
    expect(buffers.take(64 * KIB).buffer).not.toBe(first.buffer);
    const again = buffers.take(64 * KIB + 1);
    expect([again.buffer, again.byteLength]).toEqual([first.buffer, 64 * KIB + 1]);
    expect(buffers.take(100_000).buffer).not.toBe(first.buffer);
  });

  it.each([0, 1, 16 * KIB - 1, 32 * MIB + 1])('of %d bytes is not kept', (bytes) => {
    const buffers = new SendBuffers();
    const first = buffers.take(bytes);
    expect(first.byteLength).toBe(bytes);
    buffers.giveBack(first);
    expect(vi.getTimerCount()).toBe(0);
    // Small ones come out of Node's pool, at another place.
    const second = buffers.take(bytes);
    expect(second.buffer === first.buffer && second.byteOffset === first.byteOffset && bytes > 0).toBe(false);
  });

  it('is not kept where 64 MiB are kept already', () => {
    const buffers = new SendBuffers();
    const taken = [32, 32, 32, 1].map((size) => buffers.take(size * MIB));
    for (const buffer of taken) buffers.giveBack(buffer);
    const kept = new Set(taken.slice(0, 2).map(({ buffer }) => buffer));
    const again = [32, 32, 32].map((size) => buffers.take(size * MIB).buffer);
    expect(again.map((buffer) => kept.has(buffer))).toEqual([true, true, false]);
    // What was taken out again makes room.
    buffers.giveBack(taken[3] as Buffer);
    expect(buffers.take(MIB).buffer).toBe((taken[3] as Buffer).buffer);
  });
});

describe('what is kept', () => {
  it('is let go of when none was taken for 5 s, and then there is no timer', () => {
    const buffers = new SendBuffers();
    const first = buffers.take(MIB);
    buffers.giveBack(first);
    vi.advanceTimersByTime(9_999);
    const again = buffers.take(MIB);
    expect(again.buffer).toBe(first.buffer);
    buffers.giveBack(again);
    // Taken in the 5 s up to 10 s, not in those after.
    vi.advanceTimersByTime(5_001);
    expect(vi.getTimerCount()).toBe(0);
    expect(buffers.take(MIB).buffer).not.toBe(first.buffer);
  });

  it('stays while buffers are taken', () => {
    const buffers = new SendBuffers();
    const first = buffers.take(MIB);
    buffers.giveBack(first);
    for (let second = 0; second < 60; second += 4) {
      vi.advanceTimersByTime(4_000);
      buffers.giveBack(buffers.take(20 * KIB));
    }
    expect(buffers.take(MIB).buffer).toBe(first.buffer);
  });

  it('is let go of again after it was let go of once', () => {
    const buffers = new SendBuffers();
    for (let round = 0; round < 2; round++) {
      const first = buffers.take(MIB);
      buffers.giveBack(first);
      expect(vi.getTimerCount()).toBe(1);
      vi.advanceTimersByTime(10_000);
      expect(vi.getTimerCount()).toBe(0);
    }
  });
});

it('never gives the same memory to two at once, nor less than was asked for', () => {
  const size = fc.oneof(fc.integer({ min: 0, max: 300 * KIB }), fc.constantFrom(16 * KIB, 64 * KIB, 32 * MIB));
  const step = fc.oneof(
    { weight: 3, arbitrary: fc.record({ take: size }) },
    { weight: 2, arbitrary: fc.record({ giveBack: fc.nat(99) }) },
    { weight: 1, arbitrary: fc.record({ waitMs: fc.integer({ min: 1, max: 12_000 }) }) },
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const buffers = new SendBuffers();
      const held: Buffer[] = [];
      for (const { take, giveBack, waitMs } of steps as { take?: number; giveBack?: number; waitMs?: number }[]) {
        if (waitMs !== undefined) vi.advanceTimersByTime(waitMs);
        if (giveBack !== undefined && held.length > 0) {
          buffers.giveBack(held.splice(giveBack % held.length, 1)[0] as Buffer);
        }
        if (take === undefined) continue;
        const taken = buffers.take(take);
        expect(taken.byteLength).toBe(take);
        expect(held.some((other) => overlap(other, taken))).toBe(false);
        held.push(taken);
      }
      vi.advanceTimersByTime(15_000);
      expect(vi.getTimerCount()).toBe(0);
    }),
    { numRuns: 50 },
  );
});

function overlap(a: Buffer, b: Buffer): boolean {
  if (a.buffer !== b.buffer || a.byteLength === 0 || b.byteLength === 0) return false;
  return a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength;
}
