import { CommError, errorFromPlain, errorToPlain } from '@splitlearn/comm';
import { describe, expect, it } from 'vitest';
import { ManagerError, type ManagerErrorCode } from './errors.js';

/** What callers on the other side of a connection match on, and so must never change by accident. */
const commCodes: Record<ManagerErrorCode, string> = {
  INVALID_CONFIG: 'INVALID_ARGUMENT',
  SOURCE_NOT_FOUND: 'NOT_FOUND',
  SOURCE_INVALID: 'FAILED_PRECONDITION',
  SOURCE_UNAVAILABLE: 'UNAVAILABLE',
  SOURCE_ACCESS_DENIED: 'PERMISSION_DENIED',
  SOURCE_CORRUPT: 'UNAVAILABLE',
  INSUFFICIENT_DISK: 'FAILED_PRECONDITION',
  LOCKFILE_MISMATCH: 'FAILED_PRECONDITION',
  DEVICE_UNAVAILABLE: 'FAILED_PRECONDITION',
  MODEL_NOT_FOUND: 'NOT_FOUND',
  MODEL_AMBIGUOUS: 'INVALID_ARGUMENT',
  MODEL_ALREADY_LOADED: 'ALREADY_EXISTS',
  MODEL_LOAD_FAILED: 'FAILED_PRECONDITION',
  MODEL_DRAINING: 'UNAVAILABLE',
  MODEL_CRASHED: 'UNAVAILABLE',
  MODEL_MEMORY_EXCEEDED: 'RESOURCE_EXHAUSTED',
  MODEL_FAILED: 'UNAVAILABLE',
  TOO_MANY_MODELS: 'FAILED_PRECONDITION',
  INSUFFICIENT_MEMORY: 'FAILED_PRECONDITION',
  INVALID_INPUT: 'INVALID_ARGUMENT',
  CONTEXT_LENGTH_EXCEEDED: 'INVALID_ARGUMENT',
  INFERENCE_FAILED: 'INVALID_ARGUMENT',
  SHUT_DOWN: 'UNAVAILABLE',
};
const codes = Object.keys(commCodes) as ManagerErrorCode[];

describe('a ManagerError', () => {
  it.each(codes)('%s is what it is to a caller, with its code as the reason', (code) => {
    const error = new ManagerError(code, 'what to do', { cause: new Error('behind it') });
    expect(error).toMatchObject({ name: 'ManagerError', code, message: 'what to do', cause: new Error('behind it') });
    const expected = { code: commCodes[code], reason: code, message: 'what to do', cause: error };
    expect(error.toCommError()).toMatchObject(expected);
    expect(CommError.from(error)).toMatchObject(expected);
  });

  it('says that it is worth trying again just where it is', () => {
    const retryable = codes.filter((code) => new ManagerError(code, '').toCommError().retryable);
    expect(retryable.sort()).toEqual([
      'MODEL_CRASHED',
      'MODEL_DRAINING',
      'MODEL_FAILED',
      'SHUT_DOWN',
      'SOURCE_CORRUPT',
      'SOURCE_UNAVAILABLE',
    ]);
  });

  it.each(codes)('%s comes back from another process as it was', (code) => {
    const received = errorFromPlain(structuredClone(errorToPlain(new ManagerError(code, 'what to do'))));
    expect(ManagerError.fromCommError(received)).toMatchObject({
      name: 'ManagerError',
      code,
      message: 'what to do',
      cause: received,
    });
  });
});

describe('fromCommError', () => {
  it('leaves what never was a ManagerError as it is', () => {
    const others = [
      new CommError('UNAVAILABLE', 'the server cannot be reached'),
      new CommError('RESOURCE_EXHAUSTED', 'try later', { reason: 'QUEUE_FULL' }),
      new CommError('INTERNAL', 'odd', { reason: 'toString' }),
      new CommError('INTERNAL', 'odd', { reason: '' }),
      new ManagerError('MODEL_CRASHED', 'crashed'),
      new Error('unexpected'),
      'text',
      undefined,
    ];
    for (const other of others) expect(ManagerError.fromCommError(other)).toBe(other);
  });
});
