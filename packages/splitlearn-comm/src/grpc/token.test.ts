import { describe, expect, it } from 'vitest';
import { bearer, tokenOf } from './token.js';

describe('a token', () => {
  it.each(['s', 'abc.DEF-123_~+/==', '!"#$%&'])('%s comes out of the metadata as it was put in', (token) => {
    expect(tokenOf({ authorization: bearer(token) })).toBe(token);
  });

  it.each([
    ['that is empty', '', 'it is empty'],
    ['with a space', 'my secret', 'it has others'],
    ['with a comma', 'my,secret', 'it has others'],
    ['with a line break', 'secret\n', 'it has others'],
    ['that is no ASCII', 'gehëim', 'it has others'],
    ['that is no text', 42, 'it is number'],
  ])('%s is refused, and not told on', (_, token, found) => {
    expect(() => bearer(token as string)).toThrow(
      expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: `token must be a text of ASCII letters, digits and signs, without spaces, commas and line breaks; ${found}`,
      }),
    );
  });
});

describe('metadata', () => {
  it.each([
    ['bearer secret', 'secret'],
    ['BEARER   secret', 'secret'],
    ['Basic secret', undefined],
    ['secret', undefined],
    ['Bearer', undefined],
    ['Bearer two words', undefined],
    ['', undefined],
  ])('with the authorization %j has the token %j', (value, token) => {
    expect(tokenOf({ authorization: value })).toBe(token);
  });

  it('without authorization has none', () => {
    expect(tokenOf({})).toBe(undefined);
  });
});
