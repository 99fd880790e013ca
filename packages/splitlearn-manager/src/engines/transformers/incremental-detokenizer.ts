import type { Decoder } from './decoder.js';

/**
 * Turns token ids into text as they come. What {@link push} and {@link flush} return adds up to exactly what decoding
 * all the ids behind the prompt at once adds to the prompt's text, but no piece ends within a character: bytes that
 * may be the beginning of one are held back until the rest of it comes.
 *
 * A tokenizer may spell a token differently by what stands before it (SentencePiece has no space at the beginning of a
 * text), so the tokens of the piece before are decoded along with the new ones, but no more than those: the time that
 * a token takes does not grow with the text.
 */
export class IncrementalDetokenizer {
  readonly #decode: Decoder;
  /** The tokens of the last piece, and all since. */
  #tokens: number[];
  /** How many of `#tokens` those of the last piece are. */
  #pieceEnd: number;
  /** How much of the text of `#tokens` was returned already. */
  #returned: number;

  /**
   * @param decode - Must not change what earlier tokens were spelt as, as tidying up spaces does.
   * @param prompt - The ids that the text continues, at least one.
   */
  constructor(decode: Decoder, prompt: readonly number[]) {
    this.#decode = decode;
    this.#tokens = [...prompt];
    this.#pieceEnd = prompt.length;
    this.#returned = decode(this.#tokens).length;
  }

  /** Takes the next token and returns the text that is certain by now, often of that very token, sometimes none. */
  push(token: number): string {
    this.#tokens.push(token);
    const text = this.#decode(this.#tokens);
    const end = endOfWholeCharacters(text);
    const piece = this.#take(text, end);
    // Tokens without text, such as special ones, are no context for what follows: the piece before them stays.
    if (piece !== '' && end === text.length) {
      this.#tokens = this.#tokens.slice(this.#pieceEnd);
      this.#pieceEnd = this.#tokens.length;
      this.#returned = this.#decode(this.#tokens).length;
    }
    return piece;
  }

  /** Returns what was held back, with U+FFFD for every character that never became whole. Called once, at the end. */
  flush(): string {
    const text = this.#decode(this.#tokens);
    return this.#take(text, text.length);
  }

  #take(text: string, end: number): string {
    const piece = text.slice(this.#returned, end);
    this.#returned += piece.length;
    return piece;
  }
}

/** Decoders write U+FFFD for bytes that are no character; at the end of a text they may become one yet. */
function endOfWholeCharacters(text: string): number {
  let end = text.length;
  while (end > 0 && text[end - 1] === '\uFFFD') end -= 1;
  return end;
}
