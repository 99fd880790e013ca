// Numbers that are the same in every run.

/** @returns a function that gives numbers from 0 to below 1. The same seed, a text, gives the same numbers. */
export function randomNumbers(seed) {
  let state = Buffer.from(seed).reduce((sum, byte) => Math.imul(sum ^ byte, 0x01000193), 0x811c9dc5) || 1;
  return () => {
    // xorshift32
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
