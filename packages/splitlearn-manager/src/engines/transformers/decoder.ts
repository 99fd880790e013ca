import type { PreTrainedTokenizer } from '@xenova/transformers';

/** Spells tokens. */
export type Decoder = (tokens: number[]) => string;

/**
 * Spells tokens as text, without special tokens and with every space as the tokens have it. Tokenizers would tidy
 * spaces up, even by default: "a , b" would become "a, b", so that a later token changed text that was sent already,
 * and code a model wrote would not be what it wrote.
 *
 * @returns A function that takes at least one token.
 */
export function decoderOf(tokenizer: PreTrainedTokenizer): Decoder {
  return (tokens) => tokenizer.decode(tokens, { skip_special_tokens: true, clean_up_tokenization_spaces: false });
}
