import { CommError, type CommErrorCode } from '@splitlearn/comm';
import type { ManagerErrorCode } from '../errors.js';
import type { Outcome } from './target-health.js';

/** What says of a target that it fails, whatever it is asked. */
const TARGET_FAILS: ReadonlySet<string> = new Set<CommErrorCode>(['UNAVAILABLE', 'INTERNAL', 'UNKNOWN', 'DATA_LOSS']);

/** It cannot be loaded: another target may do. Not `INSUFFICIENT_MEMORY`, which a single run may want too much of. */
const CANNOT_BE_LOADED: ReadonlySet<string> = new Set<ManagerErrorCode>([
  'DEVICE_UNAVAILABLE',
  'INSUFFICIENT_DISK',
  'LOCKFILE_MISMATCH',
  'MODEL_LOAD_FAILED',
  'SOURCE_ACCESS_DENIED',
  'SOURCE_INVALID',
  'SOURCE_NOT_FOUND',
  'TOO_MANY_MODELS',
]);

/** It goes because somebody wants it to. */
const ON_PURPOSE: ReadonlySet<string> = new Set<ManagerErrorCode>(['MODEL_DRAINING', 'SHUT_DOWN']);

/**
 * What an error says of the target that it came from. Errors of the caller (`INVALID_ARGUMENT`, a deadline, a
 * cancellation) say nothing of it, nor does a full queue: a target that is busy works.
 */
export function outcomeOf(error: unknown): Outcome {
  const { code, reason = '' } = CommError.from(error);
  if (CANNOT_BE_LOADED.has(reason)) return 'bad';
  return TARGET_FAILS.has(code) && !ON_PURPOSE.has(reason) ? 'bad' : 'neither';
}
