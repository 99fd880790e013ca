import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { StopStrings } from './stop-strings.js';

/** What comes out for each piece, and at last what is flushed. */
function feed(strings: readonly string[], pieces: readonly string[]): { out: string[]; reached: boolean } {
  const stop = new StopStrings(strings);
  const out: string[] = [];
  for (const piece of pieces) {
    out.push(stop.push(piece));
    if (stop.reached) return { out, reached: true };
  }
  out.push(stop.flush());
  return { out, reached: false };
}

describe('StopStrings', () => {
  it('passes everything on at once when there are none', () => {
    expect(feed([], ['a', '', 'bc'])).toEqual({ out: ['a', '', 'bc', ''], reached: false });
  });

  it('ends the text before a string within one piece', () => {
    expect(feed(['END'], ['one END two'])).toEqual({ out: ['one '], reached: true });
  });

  it('finds a string that spans pieces and never lets its beginning out', () => {
    expect(feed(['END'], ['one E', 'N', 'D two'])).toEqual({ out: ['one ', '', ''], reached: true });
  });

  it('holds no more back than may be a beginning, and gives it out when it was none', () => {
    expect(feed(['END'], ['one E', 'NOW', ' E'])).toEqual({ out: ['one ', 'ENOW', ' ', 'E'], reached: false });
  });

  it('sees a beginning inside a beginning that failed', () => {
    expect(feed(['aab'], ['a', 'a', 'a', 'b'])).toEqual({ out: ['', '', 'a', ''], reached: true });
  });

  it('ends at the string that is complete first, at the longest of those that end together', () => {
    expect(feed(['bcdef', 'cd'], ['abcdef'])).toEqual({ out: ['ab'], reached: true });
    expect(feed(['cd', 'bcd'], ['abcdef'])).toEqual({ out: ['a'], reached: true });
  });

  it('gives the same text however it is divided, and none of the strings in it', () => {
    // Few letters, so that the strings do occur and overlap.
    const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 40 });
    const strings = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), minLength: 1, maxLength: 5 }), {
      maxLength: 4,
    });
    fc.assert(
      fc.property(text, strings, fc.array(fc.nat(40), { maxLength: 10 }), (whole, stops, cuts) => {
        const at = [0, ...cuts.filter((cut) => cut < whole.length).sort((left, right) => left - right), whole.length];
        const pieces = at.slice(1).map((end, index) => whole.slice(at[index], end));
        const { out, reached } = feed(stops, pieces);
        const byCharacter = feed(stops, [...whole]);

        expect(out.join('')).toBe(byCharacter.out.join(''));
        expect(reached).toBe(stops.some((stop) => whole.includes(stop)));
        expect(stops.filter((stop) => out.join('').includes(stop))).toEqual([]);
        expect(whole.startsWith(out.join(''))).toBe(true);
        if (!reached) expect(out.join('')).toBe(whole);
      }),
      { numRuns: 1000 },
    );
  });
});
