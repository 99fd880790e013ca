import { setMaxListeners } from 'node:events';
import { CommError } from './errors.js';

/** Calls `listener` when the signal is aborted; call the result to stop listening. */
export function onAbort(signal: AbortSignal, listener: () => void): () => void {
  // One signal may belong to any number of calls, but Node takes the eleventh listener for a leak and warns.
  setMaxListeners(0, signal);
  signal.addEventListener('abort', listener, { once: true });
  return () => signal.removeEventListener('abort', listener);
}

/** What an aborted signal means to the caller: its reason where that is a `CommError`, which says more than we know. */
export function abortError({ reason }: AbortSignal, message = 'the call was cancelled by its caller'): CommError {
  return reason instanceof CommError ? reason : new CommError('CANCELLED', message, { cause: reason });
}
