import type { PlainError } from '../errors.js';
import type { Model, ModelCall } from '../model.js';
import type { Tensors } from '../tensor.js';

// What a WorkerExecutor and its threads say to each other. One call is under way in a thread at a time.

/** Given to a thread when it is made. */
export interface WorkerStart {
  /** URL of the module whose default export is, or makes, the model. */
  readonly moduleUrl: string;
  readonly data: unknown;
}

export type ToWorker =
  | { readonly type: 'call'; readonly kind: 'run' | 'stream'; readonly inputs: Tensors; readonly call: PlainCall }
  /** The answer is not wanted any more; the thread still ends the call. */
  | { readonly type: 'cancel'; readonly reason: PlainError }
  /** So many pieces have been taken; the thread may send as many more. */
  | { readonly type: 'credit'; readonly pieces: number }
  | { readonly type: 'dispose' };

export type FromWorker =
  | { readonly type: 'ready'; readonly info: Model['info'] }
  /** The model could not be loaded, or not be disposed of. */
  | { readonly type: 'failed'; readonly error: PlainError }
  /** `last`: the call is over. So it is with the one piece of a `run`. */
  | { readonly type: 'pieces'; readonly pieces: readonly Piece[]; readonly last: boolean }
  /** A stream is over. */
  | { readonly type: 'end' }
  | { readonly type: 'error'; readonly error: PlainError };

/** What a run gives, or a stream one after the other. */
export interface Piece {
  readonly outputs: Tensors;
  readonly computeMs: number;
}

export type PlainCall = Omit<ModelCall, 'signal'>;

/** How many pieces of a stream a thread may be ahead of whoever reads them. */
export const STREAM_WINDOW = 32;

/**
 * Pieces of a stream that come sooner than this after those before, in milliseconds, wait for the next ones and go with
 * them: whoever reads cannot tell, and each message wakes three processes on its way to a client.
 */
export const GATHER_MS = 5;

/** Larger pieces wait for no other, in bytes: they cost more than their messages do. */
export const GATHER_BYTES = 16 * 1024;

/** After so many pieces the thread is told that they have been taken: a message for each would cost as much as the piece. */
export const CREDIT_PIECES = 8;
