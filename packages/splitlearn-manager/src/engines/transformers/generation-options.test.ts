import { describe, expect, it } from 'vitest';
import { parseGenerationOptions } from './generation-options.js';

const defaults = { maxNewTokens: 64, temperature: 0, topK: 0, topP: 1, repetitionPenalty: 1, stop: [] };
const names = Object.keys({ ...defaults, seed: 0 });

describe('parseGenerationOptions', () => {
  it('fills in the defaults', () => {
    expect(parseGenerationOptions({})).toEqual(defaults);
  });

  it('takes every parameter', () => {
    const all = {
      maxNewTokens: 7,
      temperature: 0.8,
      topK: 40,
      topP: 0.9,
      repetitionPenalty: 1.2,
      seed: 3,
      stop: ['\n'],
    };
    expect(parseGenerationOptions(all)).toEqual(all);
  });

  it('takes one stop string as a list of one', () => {
    expect(parseGenerationOptions({ stop: '.' }).stop).toEqual(['.']);
  });

  it.each([
    { maxNewTokens: 1 },
    { temperature: 0 },
    { topK: 0 },
    { topP: 1 },
    { topP: Number.MIN_VALUE },
    { repetitionPenalty: Number.MIN_VALUE },
    { seed: 0 },
    { seed: Number.MAX_SAFE_INTEGER },
    { stop: [] },
    { stop: 'x'.repeat(256) },
    { stop: Array.from({ length: 16 }, (_, index) => `${index}`) },
  ])('takes the end of a range: %o', (parameters) => {
    expect(() => parseGenerationOptions(parameters)).not.toThrow();
  });

  it.each([
    { maxNewTokens: 0 },
    { maxNewTokens: 1.5 },
    { maxNewTokens: '8' },
    { maxNewTokens: null },
    { temperature: -0.1 },
    { temperature: Number.NaN },
    { temperature: Number.POSITIVE_INFINITY },
    { topK: -1 },
    { topK: 2.5 },
    { topP: 0 },
    { topP: 1.01 },
    { repetitionPenalty: 0 },
    { repetitionPenalty: [1] },
    { seed: -1 },
    { seed: 2 ** 53 },
    { seed: 'abc' },
    { stop: '' },
    { stop: [''] },
    { stop: [1] },
    { stop: 'x'.repeat(257) },
    { stop: Array.from({ length: 17 }, (_, index) => `${index}`) },
    { stop: { text: '.' } },
  ])('refuses %o, and names the parameter, what it may be and the others', (parameters) => {
    const [name] = Object.keys(parameters);
    expect(() => parseGenerationOptions(parameters)).toThrow(
      expect.objectContaining({
        name: 'ManagerError',
        code: 'INVALID_INPUT',
        message: expect.stringMatching(new RegExp(`^The parameter '${name}' cannot be .*'${name}' \\(`)) as string,
      }),
    );
  });

  it('refuses a parameter that it does not know', () => {
    expect(() => parseGenerationOptions({ max_new_tokens: 8 })).toThrow(
      expect.objectContaining({
        code: 'INVALID_INPUT',
        message: expect.stringMatching(/^There is no parameter 'max_new_tokens'\./) as string,
      }),
    );
  });

  it.each(names)('names %s when it refuses anything', (name) => {
    expect(() => parseGenerationOptions({ max_new_tokens: 8 })).toThrow(`'${name}' (`);
  });

  it('shows only the beginning of a long value', () => {
    expect(() => parseGenerationOptions({ stop: 'x'.repeat(10_000) })).toThrow(
      expect.objectContaining({ message: expect.stringMatching(/^.{0,1000}$/) as string }),
    );
  });
});
