import { fileURLToPath } from 'node:url';
import { AutoTokenizer, env } from '@xenova/transformers';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Decoder, decoderOf } from './decoder.js';
import { IncrementalDetokenizer } from './incremental-detokenizer.js';

env.allowRemoteModels = false;
const folder = fileURLToPath(new URL('../../../models/tiny-gpt2', import.meta.url));
const tokenizer = await AutoTokenizer.from_pretrained(folder);

const spell = decoderOf(tokenizer);
const decode: Decoder = (tokens) => (tokens.length === 0 ? '' : spell(tokens));

function detokenize(tokens: readonly number[], prompt: readonly number[] = [], decoder = decode): string[] {
  const detokenizer = new IncrementalDetokenizer(decoder, prompt);
  return [...tokens.map((token) => detokenizer.push(token)), detokenizer.flush()];
}

/** SentencePiece: a token begins a word with a space, but the text does not begin with one. */
function decodeLikeSentencePiece(tokens: number[]): string {
  const words = ['', '', ' he', 'l', 'lo', ' wor', 'ld', ' \u{1F600}'];
  return tokens
    .map((token) => words[token])
    .join('')
    .replace(/^ /, '');
}

const token = fc.nat(1023);
/** The tokens of single bytes come first in the vocabulary: with them characters come in parts, and broken. */
const byte = fc.constantFrom(
  ...[...'\u00e9\u20ac\u{1F600}\uFEFF\uFFFD'].flatMap((character) => tokenizer.encode(character)),
);
const anything = fc.array(fc.oneof(token, byte, fc.nat(255)), { maxLength: 60 });

describe('IncrementalDetokenizer', () => {
  it('gives, piece by piece, exactly what decoding everything at once gives', () => {
    fc.assert(
      fc.property(anything, (tokens) => {
        expect(detokenize(tokens).join('')).toBe(decode(tokens));
      }),
      { numRuns: 2000 },
    );
  });

  it('gives exactly what a prompt lacks to the whole', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1 }), anything, (text, tokens) => {
        const prompt = tokenizer.encode(text);
        expect(decode(prompt) + detokenize(tokens, prompt).join('')).toBe(decode([...prompt, ...tokens]));
      }),
      { numRuns: 300 },
    );
  });

  it('gives any text without a single U+FFFD, and no half characters', () => {
    const text = fc.string({ unit: 'grapheme' }).filter((string) => !string.includes('\uFFFD'));
    fc.assert(
      fc.property(text, (whole) => {
        const pieces = detokenize(tokenizer.encode(whole));
        expect(pieces.join('')).toBe(decode(tokenizer.encode(whole)));
        expect(pieces.filter((piece) => /[\p{Surrogate}\uFFFD]/u.test(piece))).toEqual([]);
      }),
      { numRuns: 1000 },
    );
  });

  it('has no U+FFFD in a piece unless it is in the whole', () => {
    fc.assert(
      fc.property(anything, (tokens) => {
        if (decode(tokens).includes('\uFFFD')) return;
        expect(detokenize(tokens).filter((piece) => piece.includes('\uFFFD'))).toEqual([]);
      }),
      { numRuns: 1000 },
    );
  });

  it('leaves spaces as they are', () => {
    const text = "one , two . do n't  we 're ?";
    expect(detokenize(tokenizer.encode(text)).join('')).toBe(text);
  });

  it('holds back the bytes of a character until it is whole', () => {
    const tokens = tokenizer.encode('\u{1F600}');
    expect(tokens).toHaveLength(4);
    expect(detokenize(tokens)).toEqual(['', '', '', '\u{1F600}', '']);
    expect(detokenize(tokens.slice(0, 3))).toEqual(['', '', '', '\uFFFD']);
  });

  it('keeps the space between the prompt and the text, and between words', () => {
    expect(detokenize([2, 3, 4, 5, 6], [], decodeLikeSentencePiece)).toEqual(['he', 'l', 'lo', ' wor', 'ld', '']);
    expect(detokenize([2, 3, 4], [5, 6], decodeLikeSentencePiece)).toEqual([' he', 'l', 'lo', '']);
  });

  it('keeps the space behind tokens that have no text', () => {
    expect(detokenize([5, 6, 0, 1, 5, 6], [], decodeLikeSentencePiece).join('')).toBe('world world');
  });

  it('decodes no more tokens for each one as the text grows', () => {
    let longest = 0;
    const watched = (tokens: number[]): string => {
      longest = Math.max(longest, tokens.length);
      return decode(tokens);
    };
    const tokens = tokenizer.encode('In the beginning \u{1F600} was the Word. '.repeat(100));
    expect(detokenize(tokens, [], watched).join('')).toBe(decode(tokens));
    expect(longest).toBeLessThan(12);
  });
});
