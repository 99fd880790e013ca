import { describe, expect, it } from 'vitest';
import { assertInteger, assertMs } from './check-options.js';

describe('assertInteger', () => {
  it.each([0, 5, 10])('takes %d where 0 to 10 may be', (value) => {
    assertInteger('port', value, 0, 10);
  });

  it.each([-1, 11, 0.5, Number.NaN, Number.POSITIVE_INFINITY, '5', undefined, null])('refuses %s there', (value) => {
    expect(() => assertInteger('port', value as number, 0, 10)).toThrow(
      expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: `port must be an integer from 0 to 10; it is ${value}`,
      }),
    );
  });

  it('has no upper limit of its own but exactness', () => {
    assertInteger('maxQueue', Number.MAX_SAFE_INTEGER, 1);
    expect(() => assertInteger('maxQueue', 2 ** 53, 1)).toThrow('maxQueue must be an integer of 1 or more');
  });
});

describe('assertMs', () => {
  it.each([0, 0.5, 1e300, Number.POSITIVE_INFINITY])('takes %d', (value) => {
    assertMs('timeoutMs', value);
  });

  it.each([-1, Number.NaN, '5', undefined, null])('refuses %s', (value) => {
    expect(() => assertMs('timeoutMs', value as number)).toThrow(
      expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: `timeoutMs must be 0 or more milliseconds; it is ${value}`,
      }),
    );
  });
});
