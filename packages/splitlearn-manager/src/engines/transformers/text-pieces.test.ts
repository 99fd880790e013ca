import { describe, expect, it } from 'vitest';
import { TextPieces, type TextPiecesOptions } from './text-pieces.js';

const words = ['', 'one', ' two', ' three', '.', '\uFFFD'];
const END = 0;

function pieces(options: Partial<TextPiecesOptions>): TextPieces {
  const decode = (tokens: number[]): string => tokens.map((token) => words[token]).join('');
  return new TextPieces({ decode, prompt: [END], maxNewTokens: 10, stop: [], endOfText: new Set([END]), ...options });
}

describe('TextPieces', () => {
  it('makes one piece of every token until the model ends the text', () => {
    const text = pieces({});
    expect(text.push(1)).toEqual({ token: 1, text: 'one' });
    expect(text.push(2)).toEqual({ token: 2, text: ' two' });
    expect(text.push(END)).toEqual({ token: END, text: '', finishReason: 'stop' });
  });

  it('ends the text with the last token that there is room for', () => {
    const text = pieces({ maxNewTokens: 2 });
    expect(text.push(1)).toEqual({ token: 1, text: 'one' });
    expect(text.push(2)).toEqual({ token: 2, text: ' two', finishReason: 'length' });
  });

  it('says stop when the model ends the text with the last token that there is room for', () => {
    expect(pieces({ maxNewTokens: 1 }).push(END)).toEqual({ token: END, text: '', finishReason: 'stop' });
    expect(pieces({ maxNewTokens: 1, stop: ['n'] }).push(1)).toEqual({ token: 1, text: 'o', finishReason: 'stop' });
  });

  it('ends the text before a stop string that spans tokens', () => {
    const text = pieces({ stop: ['e two th'] });
    expect(text.push(1)).toEqual({ token: 1, text: 'on' });
    expect(text.push(2)).toEqual({ token: 2, text: '' });
    expect(text.push(3)).toEqual({ token: 3, text: '', finishReason: 'stop' });
  });

  it('puts what was held back into the last piece', () => {
    const held = pieces({ stop: ['e two th'] });
    held.push(1);
    expect(held.push(END)).toEqual({ token: END, text: 'e', finishReason: 'stop' });

    const half = pieces({ maxNewTokens: 2 });
    half.push(1);
    expect(half.push(5)).toEqual({ token: 5, text: '\uFFFD', finishReason: 'length' });
  });

  it('finds a stop string that only the flush completes', () => {
    const text = pieces({ stop: ['e\uFFFD'], maxNewTokens: 2 });
    expect(text.push(1)).toEqual({ token: 1, text: 'on' });
    expect(text.push(5)).toEqual({ token: 5, text: '', finishReason: 'stop' });
  });
});
