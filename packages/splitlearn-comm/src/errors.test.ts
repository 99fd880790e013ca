import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { CommError, type CommErrorCode, errorFromPlain, errorToPlain, knownError } from './errors.js';

const codes: CommErrorCode[] = [
  'CANCELLED',
  'UNKNOWN',
  'INVALID_ARGUMENT',
  'DEADLINE_EXCEEDED',
  'NOT_FOUND',
  'ALREADY_EXISTS',
  'PERMISSION_DENIED',
  'RESOURCE_EXHAUSTED',
  'FAILED_PRECONDITION',
  'ABORTED',
  'OUT_OF_RANGE',
  'UNIMPLEMENTED',
  'INTERNAL',
  'UNAVAILABLE',
  'DATA_LOSS',
  'UNAUTHENTICATED',
];

describe('CommError', () => {
  it.each(codes)('carries the code %s', (code) => {
    expect(new CommError(code, 'why')).toMatchObject({ name: 'CommError', code, message: 'why' });
  });

  it('has a reason, a time to retry after and a cause only where they are given', () => {
    const bare = new CommError('INTERNAL', 'why');
    expect([bare.reason, bare.retryAfterMs]).toEqual([undefined, undefined]);
    expect('cause' in bare).toBe(false);
    const cause = new TypeError('deep down');
    const full = new CommError('INTERNAL', 'why', { cause, reason: 'QUEUE_FULL', retryAfterMs: 20 });
    expect(full).toMatchObject({ reason: 'QUEUE_FULL', retryAfterMs: 20 });
    expect(full.cause).toBe(cause);
    expect(new CommError('INTERNAL', 'why', { cause: null }).cause).toBe(null);
  });

  it('is retryable when the server was not there, or was busy and said when to come back', () => {
    expect(codes.filter((code) => new CommError(code, '').retryable)).toEqual(['UNAVAILABLE']);
    const later = codes.filter((code) => new CommError(code, '', { retryAfterMs: 0 }).retryable);
    expect(later).toEqual(['RESOURCE_EXHAUSTED', 'UNAVAILABLE']);
  });

  it('starts its stack with its name and message, so that a log shows both', () => {
    expect(new CommError('INTERNAL', 'why').stack).toMatch(/^CommError: why\n/);
  });

  it('shows no brand among its enumerable properties', () => {
    const error = new CommError('INTERNAL', 'why');
    expect(Object.getOwnPropertySymbols({ ...error })).toEqual([]);
  });

  it.each([null, undefined, 0, '', 'CommError', Symbol('x'), () => {}, {}, new Error('x'), { name: 'CommError' }])(
    'does not take %s for one of its own',
    (value) => {
      expect(value instanceof CommError).toBe(false);
    },
  );

  it('is passed through by from(), which makes an INTERNAL error without a message of anything else', () => {
    const error = new CommError('NOT_FOUND', 'why');
    expect(CommError.from(error)).toBe(error);
    const secret = new Error('password=hunter2');
    const wrapped = CommError.from(secret);
    expect(wrapped).toMatchObject({ code: 'INTERNAL', message: 'internal error' });
    expect(wrapped.cause).toBe(secret);
    expect(CommError.from('thrown text').cause).toBe('thrown text');
    expect(CommError.from(undefined).code).toBe('INTERNAL');
  });

  it('is what toCommError() gives, for an error of another class that has the method', () => {
    class ModelError extends Error {
      toCommError() {
        return new CommError('NOT_FOUND', 'no such model', { reason: 'MODEL_NOT_FOUND', retryAfterMs: 5, cause: this });
      }
    }
    const error = new ModelError('/secret/path does not exist');
    const expected = { code: 'NOT_FOUND', message: 'no such model', reason: 'MODEL_NOT_FOUND', retryAfterMs: 5 };
    expect(knownError(error)).toMatchObject({ ...expected, cause: error });
    expect(CommError.from(error)).toMatchObject({ ...expected, cause: error });
    expect(errorToPlain(error)).toEqual({ ...expected, stack: error.stack });
  });

  it('is not made of a toCommError that is no method, is no Error’s, or gives no CommError', () => {
    const odd = [
      Object.assign(new Error('x'), { toCommError: 'text' }),
      Object.assign(new Error('x'), { toCommError: () => undefined }),
      Object.assign(new Error('x'), { toCommError: () => new Error('y') }),
      { toCommError: () => new CommError('NOT_FOUND', 'y') },
    ];
    for (const error of odd) {
      expect(knownError(error)).toBe(undefined);
      expect(CommError.from(error)).toMatchObject({ code: 'INTERNAL', message: 'internal error', cause: error });
      expect(errorToPlain(error)).not.toHaveProperty('code');
    }
    expect(knownError(undefined)).toBe(undefined);
  });

  it('does not count as an instance of every class that extends it', () => {
    class QueueError extends CommError {}
    class FullError extends QueueError {}
    const queueError = new QueueError('INTERNAL', '');
    expect(queueError instanceof QueueError && queueError instanceof CommError).toBe(true);
    expect(new FullError('INTERNAL', '') instanceof QueueError).toBe(true);
    expect(queueError instanceof FullError).toBe(false);
    expect(new CommError('INTERNAL', '') instanceof QueueError).toBe(false);
    expect((null as unknown) instanceof QueueError).toBe(false);
  });

  describe('of two copies of the package', () => {
    async function anotherCopy() {
      vi.resetModules();
      const copy = await import('./errors.js');
      expect(copy.CommError).not.toBe(CommError);
      return copy;
    }

    it('is an instance of both', async () => {
      const other = await anotherCopy();
      expect(new CommError('INTERNAL', '') instanceof other.CommError).toBe(true);
      const theirs: unknown = new other.CommError('INTERNAL', '');
      expect(theirs instanceof CommError).toBe(true);
      expect(Object.getPrototypeOf(theirs)).not.toBe(CommError.prototype);
    });

    it('is an instance of the class that extends its own copy, and of no other', async () => {
      const other = await anotherCopy();
      class Theirs extends other.CommError {}
      const error: unknown = new Theirs('INTERNAL', '');
      expect(error instanceof Theirs && error instanceof CommError).toBe(true);
      expect(new CommError('INTERNAL', '') instanceof Theirs).toBe(false);
    });

    it('is passed through by from(), and keeps what it knows in errorToPlain()', async () => {
      const other = await anotherCopy();
      const theirs = new other.CommError('UNAVAILABLE', 'why', { reason: 'GONE', retryAfterMs: 5 });
      expect(CommError.from(theirs)).toBe(theirs);
      expect(errorToPlain(theirs)).toMatchObject({ code: 'UNAVAILABLE', reason: 'GONE', retryAfterMs: 5 });
    });
  });
});

describe('errorToPlain and errorFromPlain', () => {
  const ways = {
    'a structured clone': (plain: ReturnType<typeof errorToPlain>) => structuredClone(plain),
    JSON: (plain: ReturnType<typeof errorToPlain>) => JSON.parse(JSON.stringify(plain)) as typeof plain,
  };

  describe.each(Object.entries(ways))('through %s', (_, send) => {
    it('bring a CommError back with all that travels', () => {
      const options = fc.record(
        { reason: fc.string(), retryAfterMs: fc.nat(), cause: fc.constant(() => 'not cloneable') },
        { requiredKeys: [] },
      );
      fc.assert(
        fc.property(fc.constantFrom(...codes), fc.string(), options, (code, message, given) => {
          const error = new CommError(code, message, given);
          const back = errorFromPlain(send(errorToPlain(error))) as CommError;
          expect(back).toBeInstanceOf(CommError);
          expect(back.cause).toBe(undefined);
          for (const key of ['name', 'code', 'message', 'reason', 'retryAfterMs', 'stack', 'retryable'] as const) {
            expect(back[key]).toBe(error[key]);
          }
        }),
      );
    });

    it('bring any other Error back as an Error with its message and stack', () => {
      const error = Object.assign(new RangeError('too far', { cause: () => {} }), { code: 'ERR_FAR', extra: () => {} });
      const back = errorFromPlain(send(errorToPlain(error)));
      expect(back).toBeInstanceOf(Error);
      expect(back).not.toBeInstanceOf(CommError);
      expect([back.message, back.stack]).toEqual(['too far', error.stack]);
      expect('code' in back).toBe(false);
    });

    it.each([
      ['text', 'text'],
      ['', ''],
      [undefined, 'undefined'],
      [null, 'null'],
      [404, '404'],
      [-0, '-0'],
      [12n, '12n'],
      [Symbol('sign'), 'Symbol(sign)'],
      [{ status: 404 }, '{ status: 404 }'],
      [Object.create(null), '[Object: null prototype] {}'],
      [() => {}, '[Function (anonymous)]'],
    ])('turn the thrown value %o, which is no Error, into the Error %s', (thrown, message) => {
      const plain = send(errorToPlain(thrown));
      expect(plain).toEqual({ message });
      expect(errorFromPlain(plain)).toMatchObject({ name: 'Error', message });
    });

    it('survive an Error whose message and stack are no text', () => {
      const odd = Object.assign(new Error(), { message: { toString: null }, stack: [() => {}] });
      const back = errorFromPlain(send(errorToPlain(odd)));
      expect(back.message).toBe('{ toString: null }');
      expect(back.stack).toContain('errors.test');
    });

    it('send only a message for an Error without a stack', () => {
      const error = new CommError('ABORTED', 'why');
      delete error.stack;
      expect(send(errorToPlain(error))).toEqual({ message: 'why', code: 'ABORTED' });
    });
  });
});
