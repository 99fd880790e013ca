import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { chooseEvictions, type EvictionCandidate, leastRecentlyUsed, type Shortage } from './eviction.js';

const candidates = fc
  .array(
    fc.record({
      memoryBytes: fc.integer({ min: 0, max: 100 }),
      idleMs: fc.integer({ min: 0, max: 5 }),
      busy: fc.boolean(),
    }),
    { maxLength: 8 },
  )
  .map((each) => each.map((candidate, index): EvictionCandidate => ({ ...candidate, modelId: String(index) })));
const shortage = fc.record({ bytes: fc.integer({ min: 0, max: 400 }), models: fc.integer({ min: 0, max: 4 }) });
/** Any order, some left out: what a policy may come to. */
const policies = fc.infiniteStream(fc.nat(7)).map((picks) => (all: readonly EvictionCandidate[]) => {
  const left = [...all];
  const order: EvictionCandidate[] = [];
  for (let count = picks.next().value ?? 0; count > 0; count--)
    order.push(...left.splice((picks.next().value ?? 0) % Math.max(1, left.length), 1));
  return order;
});

function candidate(modelId: string, memoryBytes: number, idleMs: number, busy = false): EvictionCandidate {
  return { modelId, memoryBytes, idleMs, busy };
}

function names(evictions: readonly EvictionCandidate[] | undefined): string[] | undefined {
  return evictions?.map(({ modelId }) => modelId);
}

function suffices(evictions: readonly EvictionCandidate[], { bytes, models }: Shortage): boolean {
  return evictions.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0) >= bytes && evictions.length >= models;
}

/** Whether a model goes before another by default. */
function isBefore(one: EvictionCandidate, other: EvictionCandidate): boolean {
  return one.busy === other.busy ? one.idleMs >= other.idleMs : other.busy;
}

describe('the models that have to go', () => {
  it('are enough, none of them too many, and there are some whenever all together are enough', () => {
    fc.assert(
      fc.property(candidates, shortage, fc.option(policies, { nil: undefined }), (all, missing, policy) => {
        let offered = leastRecentlyUsed(all, missing);
        const remembering = (given: readonly EvictionCandidate[]) => {
          if (policy) offered = policy(given);
          return offered;
        };
        const chosen = chooseEvictions(all, missing, policy && remembering);
        expect(chosen !== undefined).toBe(suffices(offered, missing));
        if (!chosen) return;
        expect(suffices(chosen, missing)).toBe(true);
        for (const one of chosen) {
          expect(offered).toContain(one);
          expect(
            suffices(
              chosen.filter((other) => other !== one),
              missing,
            ),
          ).toBe(false);
        }
        expect(new Set(chosen).size).toBe(chosen.length);
        // In the order of the policy.
        expect(chosen).toEqual(offered.filter((each) => chosen.includes(each)));
      }),
    );
  });

  it('are those that nobody uses, and of these the longest unused, where they are all of one size', () => {
    fc.assert(
      fc.property(candidates, shortage, (all, missing) => {
        const alike = all.map((each) => ({ ...each, memoryBytes: 50 }));
        const chosen = chooseEvictions(alike, missing) ?? [];
        for (const staying of alike.filter((each) => !chosen.includes(each)))
          for (const going of chosen) expect(isBefore(going, staying), `${going.modelId} first`).toBe(true);
      }),
    );
  });

  it('are busy only when all idle ones are not enough', () => {
    fc.assert(
      fc.property(candidates, shortage, (all, missing) => {
        const chosen = chooseEvictions(all, missing) ?? [];
        const idle = all.filter(({ busy }) => !busy);
        expect(chosen.some(({ busy }) => busy)).toBe(suffices(all, missing) && !suffices(idle, missing));
      }),
    );
  });

  it('are none where nothing is missing', () => {
    expect(chooseEvictions([candidate('a', 100, 9)], { bytes: 0, models: 0 })).toEqual([]);
    expect(chooseEvictions([], { bytes: 0, models: 0 })).toEqual([]);
    expect(chooseEvictions([], { bytes: 1, models: 0 })).toBe(undefined);
    expect(chooseEvictions([], { bytes: 0, models: 1 })).toBe(undefined);
  });

  it('do not include a small one that was unused for longest when a large one has to go anyway', () => {
    const all = [candidate('large', 100, 5), candidate('small', 10, 9), candidate('recent', 200, 1)];
    expect(names(chooseEvictions(all, { bytes: 100, models: 0 }))).toEqual(['large']);
    expect(names(chooseEvictions(all, { bytes: 110, models: 0 }))).toEqual(['small', 'large']);
    expect(names(chooseEvictions(all, { bytes: 10, models: 0 }))).toEqual(['small']);
    // The small one is one of two that have to go.
    expect(names(chooseEvictions(all, { bytes: 100, models: 2 }))).toEqual(['small', 'large']);
  });

  it('spare the one that was used last where either of two may stay', () => {
    const all = [candidate('oldest', 10, 9), candidate('older', 10, 8), candidate('large', 20, 7)];
    expect(names(chooseEvictions(all, { bytes: 30, models: 0 }))).toEqual(['oldest', 'large']);
  });

  it('may be just enough, to the byte', () => {
    const all = [candidate('a', 10, 2), candidate('b', 10, 1)];
    expect(names(chooseEvictions(all, { bytes: 20, models: 0 }))).toEqual(['a', 'b']);
    expect(chooseEvictions(all, { bytes: 21, models: 0 })).toBe(undefined);
    expect(names(chooseEvictions(all, { bytes: 10, models: 1 }))).toEqual(['a']);
    expect(chooseEvictions(all, { bytes: 0, models: 3 })).toBe(undefined);
  });

  it("are what a policy of one's own says, which is told what is missing", () => {
    const all = [candidate('a', 10, 9), candidate('b', 10, 1), candidate('c', 30, 0, true)];
    const missing = { bytes: 15, models: 1 };
    const told: unknown[] = [];
    const largestFirst = (given: readonly EvictionCandidate[], shortage: Shortage) => {
      told.push(given, shortage);
      return [...given].sort((one, other) => other.memoryBytes - one.memoryBytes);
    };
    expect(names(chooseEvictions(all, missing, largestFirst))).toEqual(['c']);
    expect(told).toEqual([all, missing]);
    expect(chooseEvictions(all, missing, () => [])).toBe(undefined);
  });
});

describe('the default order', () => {
  it('is idle before busy, and the longest unused first, and leaves what it is given as it is', () => {
    const all = [candidate('a', 1, 3, true), candidate('b', 1, 1), candidate('c', 1, 8, true), candidate('d', 1, 4)];
    const before = [...all];
    expect(names(leastRecentlyUsed(all, { bytes: 1, models: 1 }))).toEqual(['d', 'b', 'c', 'a']);
    expect(all).toEqual(before);
  });
});
