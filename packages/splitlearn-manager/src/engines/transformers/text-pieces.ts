import type { Decoder } from './decoder.js';
import { IncrementalDetokenizer } from './incremental-detokenizer.js';
import { StopStrings } from './stop-strings.js';

/** Why a text is over: the model or a stop string ended it, or there was no room for more tokens. */
type FinishReason = 'stop' | 'length';

/** What one generated token adds to the text. */
export interface TextPiece {
  readonly token: number;
  readonly text: string;
  /** Only the last piece has it. */
  readonly finishReason?: FinishReason;
}

/** What {@link TextPieces} needs to know. */
export interface TextPiecesOptions {
  readonly decode: Decoder;
  /** The ids that the text continues, at least one. */
  readonly prompt: readonly number[];
  /** How many tokens the text may have, from 1. */
  readonly maxNewTokens: number;
  readonly stop: readonly string[];
  /** The tokens with which the model ends a text. */
  readonly endOfText: ReadonlySet<number>;
}

/**
 * Makes pieces of text of the tokens of one generation, and says when it is over. Every token gives exactly one piece,
 * which may be empty; the last one carries all the text that was still held back.
 */
export class TextPieces {
  readonly #detokenizer: IncrementalDetokenizer;
  readonly #stopStrings: StopStrings;
  readonly #endOfText: ReadonlySet<number>;
  #tokensLeft: number;

  constructor({ decode, prompt, maxNewTokens, stop, endOfText }: TextPiecesOptions) {
    this.#detokenizer = new IncrementalDetokenizer(decode, prompt);
    this.#stopStrings = new StopStrings(stop);
    this.#endOfText = endOfText;
    this.#tokensLeft = maxNewTokens;
  }

  /** Takes the next token. Not to be called again after a piece with a `finishReason`. */
  push(token: number): TextPiece {
    this.#tokensLeft -= 1;
    const ended = this.#endOfText.has(token);
    let text = ended ? '' : this.#stopStrings.push(this.#detokenizer.push(token));
    if (!ended && !this.#stopStrings.reached && this.#tokensLeft > 0) return { token, text };
    if (!this.#stopStrings.reached)
      text += this.#stopStrings.push(this.#detokenizer.flush()) + this.#stopStrings.flush();
    return { token, text, finishReason: ended || this.#stopStrings.reached ? 'stop' : 'length' };
  }
}
