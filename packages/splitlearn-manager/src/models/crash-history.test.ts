import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { COOL_DOWN_MS, CrashHistory } from './crash-history.js';

/** What a history says to crashes that come after the given times. */
function delays(history: CrashHistory, upMs: readonly number[]): (number | undefined)[] {
  return upMs.map((ms) => history.crashed(ms));
}

describe('a model that crashes', () => {
  it('is started again at once, then with doubling delays, and given up with the fifth crash in a row', () => {
    expect(delays(new CrashHistory(), [0, 0, 0, 0, 0])).toEqual([0, 500, 1_000, 2_000, undefined]);
  });

  it('is given up again with the first crash after it was left alone, however often', () => {
    const history = new CrashHistory();
    delays(history, [0, 0, 0, 0, 0]);
    expect(delays(history, [0, 4_999, 0])).toEqual([undefined, undefined, undefined]);
  });

  it('begins anew when it has answered a request', () => {
    const history = new CrashHistory();
    delays(history, [0, 0, 0, 0]);
    history.worked();
    expect(delays(history, [0, 0, 0, 0, 0])).toEqual([0, 500, 1_000, 2_000, undefined]);
    history.worked();
    expect(delays(history, [0, 0])).toEqual([0, 500]);
  });

  it('begins anew when it was up for 5 seconds', () => {
    const history = new CrashHistory();
    delays(history, [0, 0, 0]);
    expect(delays(history, [5_000, 0, 4_999])).toEqual([0, 500, 1_000]);
    delays(history, [0, 0]);
    expect(delays(history, [5_000, 0])).toEqual([0, 500]);
  });

  it('is given up after five crashes in a row only, whatever came before them', () => {
    const event = fc.oneof(fc.constant('worked' as const), fc.integer({ min: 0, max: 10_000 }));
    fc.assert(
      fc.property(fc.array(event, { maxLength: 50, size: 'max' }), (events) => {
        const history = new CrashHistory();
        let inARow = 0;
        for (const next of events) {
          if (next === 'worked') {
            history.worked();
            inARow = 0;
            continue;
          }
          inARow = next >= 5_000 ? 1 : inARow + 1;
          expect(history.crashed(next)).toBe([0, 500, 1_000, 2_000][inARow - 1]);
        }
      }),
    );
  });

  it('is left alone for five minutes', () => {
    expect(COOL_DOWN_MS).toBe(300_000);
  });
});
