import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sampleToken } from './sample-token.js';

const off = { temperature: 1, topK: 0, topP: 1 };

/** The scores of tokens with these probabilities. */
function logitsOf(...probabilities: number[]): Float32Array {
  return Float32Array.from(probabilities, Math.log);
}

/** Every token that can be drawn, found by trying random numbers all over [0, 1). */
function drawable(logits: Float32Array, options: typeof off): number[] {
  const tokens = Array.from({ length: 2000 }, (_, step) => sampleToken(logits, options, () => step / 2000));
  return [...new Set(tokens)].sort((left, right) => left - right);
}

describe('sampleToken', () => {
  it('draws each token by its probability', () => {
    const logits = logitsOf(0.1, 0.6, 0.3);
    const drawn = Array.from({ length: 1000 }, (_, step) => sampleToken(logits, off, () => (step + 0.5) / 1000));
    expect([0, 1, 2].map((token) => drawn.filter((other) => other === token).length)).toEqual([100, 600, 300]);
  });

  it('evens the probabilities out with a high temperature and sharpens them with a low one', () => {
    const logits = logitsOf(0.2, 0.8);
    const share = (temperature: number): number => {
      const draws = Array.from({ length: 1000 }, (_, step) =>
        sampleToken(logits, { ...off, temperature }, () => (step + 0.5) / 1000),
      );
      return draws.filter((token) => token === 1).length / 1000;
    };
    expect(share(0.5)).toBeCloseTo(16 / 17, 2);
    expect(share(1)).toBeCloseTo(0.8, 2);
    expect(share(2)).toBeCloseTo(2 / 3, 2);
    expect(share(1000)).toBeCloseTo(0.5, 2);
    expect(share(1e-3)).toBe(1);
  });

  it('keeps the topK most likely tokens', () => {
    const logits = logitsOf(0.1, 0.4, 0.2, 0.3);
    expect(drawable(logits, { ...off, topK: 1 })).toEqual([1]);
    expect(drawable(logits, { ...off, topK: 2 })).toEqual([1, 3]);
    expect(drawable(logits, { ...off, topK: 3 })).toEqual([1, 2, 3]);
    for (const topK of [0, 4, 5, 1e9]) expect(drawable(logits, { ...off, topK })).toEqual([0, 1, 2, 3]);
  });

  it('keeps the fewest most likely tokens that add up to topP', () => {
    const logits = logitsOf(0.1, 0.4, 0.2, 0.3);
    expect(drawable(logits, { ...off, topP: 1e-9 })).toEqual([1]);
    expect(drawable(logits, { ...off, topP: 0.39 })).toEqual([1]);
    expect(drawable(logits, { ...off, topP: 0.41 })).toEqual([1, 3]);
    expect(drawable(logits, { ...off, topP: 0.75 })).toEqual([1, 2, 3]);
    expect(drawable(logits, { ...off, topP: 0.95 })).toEqual([0, 1, 2, 3]);
  });

  it('applies topP to what topK leaves, after the temperature', () => {
    // Of 0.4, 0.3 and 0.2 the first two are 0.78, so 0.75 needs no third; of all four they are 0.7.
    const logits = logitsOf(0.1, 0.4, 0.2, 0.3);
    expect(drawable(logits, { ...off, topK: 3, topP: 0.75 })).toEqual([1, 3]);
    expect(drawable(logits, { temperature: 0.1, topK: 0, topP: 0.75 })).toEqual([1]);
  });

  it('draws from the nucleus that sorting everything gives, for any scores', () => {
    // Different enough that no two tokens are equally likely, which would keep more than topK.
    const scores = fc.uniqueArray(fc.integer({ min: -300, max: 300 }), { minLength: 1, maxLength: 300 });
    const options = fc.record({
      temperature: fc.double({ min: 0.05, max: 5, noNaN: true }),
      topK: fc.nat(320),
      topP: fc.double({ min: 0.01, max: 1, noNaN: true }),
    });
    const uniform = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
    fc.assert(
      fc.property(scores, options, uniform, (list, { temperature, topK, topP }, random) => {
        const logits = Float32Array.from(list, (score) => score / 10);
        const token = sampleToken(logits, { temperature, topK, topP }, () => random);

        const kept = Array.from(logits.toSorted().reverse()).slice(0, topK === 0 ? undefined : topK);
        const rank = kept.indexOf(logits.at(token) ?? Number.NaN);
        expect(rank).not.toBe(-1);
        const weights = kept.map((logit) => Math.exp((logit - Math.max(...kept)) / temperature));
        const sum = (some: number[]): number => some.reduce((total, weight) => total + weight, 0);
        // Those that are likelier than the drawn token do not add up to topP by themselves, but for rounding.
        expect(sum(weights.slice(0, rank))).toBeLessThan(topP * sum(weights) * (1 + 1e-9));
      }),
    );
  });

  it('copes with scores and temperatures at the ends of their ranges', () => {
    const options = { temperature: 5e-324, topK: 0, topP: 1 };
    expect(sampleToken(Float32Array.of(1, 3, 2), options, () => 0.999)).toBe(1);
    expect(sampleToken(Float32Array.of(1, Infinity, 2), off, () => 0.999)).toBe(1);
    expect(sampleToken(Float32Array.of(-Infinity, 0, -Infinity), { ...off, topP: 0.5 }, () => 0)).toBe(1);
    expect(sampleToken(Float32Array.of(-Infinity, -Infinity), off, () => 0.75)).toBe(1);
    expect(sampleToken(Float32Array.of(4), off, () => 1 - Number.EPSILON / 2)).toBe(0);
  });

  it('leaves the scores as they are', () => {
    const logits = Float32Array.of(3, 1, 2);
    sampleToken(logits, { temperature: 0.5, topK: 2, topP: 0.5 }, () => 0.5);
    expect(logits).toEqual(Float32Array.of(3, 1, 2));
  });
});
