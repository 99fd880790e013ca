/**
 * Ends a text that comes in pieces before the first of some strings. Text that may turn out to be the beginning of
 * one is held back until it is certain, so a string is found wherever the pieces divide it.
 */
export class StopStrings {
  readonly #strings: readonly string[];
  #held = '';
  #reached = false;

  /** @param strings - None of them empty. */
  constructor(strings: readonly string[]) {
    this.#strings = strings;
  }

  /** Whether one of the strings was found, so that the text is over. */
  get reached(): boolean {
    return this.#reached;
  }

  /** Takes the next piece and returns the text that is certain by now. */
  push(piece: string): string {
    const text = this.#held + piece;
    const found = this.#find(text);
    this.#reached = found !== undefined;
    const end = found ?? text.length - this.#undecidedLength(text);
    this.#held = this.#reached ? '' : text.slice(end);
    return text.slice(0, end);
  }

  /** Returns what was held back. Called once, at the end, when it cannot become one of the strings any more. */
  flush(): string {
    const text = this.#held;
    this.#held = '';
    return text;
  }

  /**
   * Where the string begins that is complete first, reading from the left: the one that would have ended the text had
   * it come character by character. Of several that end in the same place it is the longest.
   */
  #find(text: string): number | undefined {
    const found = this.#strings
      .map((string) => ({ start: text.indexOf(string), length: string.length }))
      .filter(({ start }) => start !== -1)
      .sort((left, right) => left.start + left.length - (right.start + right.length) || left.start - right.start);
    return found[0]?.start;
  }

  /** The length of the longest end of the text that is the beginning of one of the strings. */
  #undecidedLength(text: string): number {
    let longest = 0;
    for (const string of this.#strings) {
      for (let length = Math.min(string.length - 1, text.length); length > longest; length -= 1) {
        if (text.endsWith(string.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
