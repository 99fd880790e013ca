import { CommError } from './errors.js';

/** The longest that `setTimeout` waits, almost 25 days; given more, it does not wait at all. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** @throws CommError `INVALID_ARGUMENT`, naming the option, for what is no integer of that range. */
export function assertInteger(option: string, value: number, min: number, max = Number.MAX_SAFE_INTEGER): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return;
  const range = max === Number.MAX_SAFE_INTEGER ? `of ${min} or more` : `from ${min} to ${max}`;
  throw new CommError('INVALID_ARGUMENT', `${option} must be an integer ${range}; it is ${String(value)}`);
}

/** @throws CommError `INVALID_ARGUMENT`, naming the option, for what is no time: a negative number, NaN, no number. */
export function assertMs(option: string, value: number): void {
  if (typeof value === 'number' && value >= 0) return;
  throw new CommError('INVALID_ARGUMENT', `${option} must be 0 or more milliseconds; it is ${String(value)}`);
}
