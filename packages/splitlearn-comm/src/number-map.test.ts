import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { NumberMap } from './number-map.js';

describe('NumberMap', () => {
  it('holds what a Map would hold', () => {
    // Few and far numbers, so that many share a slot.
    const key = fc.oneof(fc.nat(40), fc.constantFrom(64, 128, 2 ** 31, 2 ** 32, 2 ** 32 + 64, Number.MAX_SAFE_INTEGER));
    const step = fc.tuple(fc.boolean(), key);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
        const map = new NumberMap<string>();
        const model = new Map<number, string>();
        for (const [index, [put, key]] of steps.entries()) {
          if (put) {
            map.set(key, `${index}`);
            model.set(key, `${index}`);
          } else expect(map.delete(key)).toBe(model.delete(key));
          expect(map.get(key)).toBe(model.get(key));
          expect(map.has(key)).toBe(model.has(key));
          expect(map.size).toBe(model.size);
        }
        expect(map.entries().sort(([a], [b]) => a - b)).toEqual([...model].sort(([a], [b]) => a - b));
        for (const [key, value] of model) expect(map.get(key)).toBe(value);
      }),
      { numRuns: 500 },
    );
  });

  it('stays as it is gone through while entries leave', () => {
    const map = new NumberMap<number>();
    for (let key = 0; key < 100; key++) map.set(key, key);
    for (const [key] of map.entries()) map.delete(key);
    expect(map.size).toBe(0);
    expect(map.entries()).toEqual([]);
  });
});
