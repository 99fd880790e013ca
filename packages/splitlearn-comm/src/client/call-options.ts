import type { ComputeRequest, JsonValue } from '../compute-function.js';

/** What a single call may be told. */
export interface CallOptions {
  /**
   * Milliseconds for the whole call, retries included. Default for `compute`: the client's `timeoutMs`; for a stream:
   * none. `Infinity` for none.
   */
  readonly timeoutMs?: number;
  /** Cancels the call when it is aborted. */
  readonly signal?: AbortSignal;
  /** Shows up in the server's context and logs. Default: a random UUID. */
  readonly requestId?: string;
  /**
   * Whether the call may run twice. Default false: where the client retries, a call whose connection was lost is not made
   * again, because the server may have begun it.
   */
  readonly idempotent?: boolean;
  /** HTTP/2 headers to send along: names in lower case, values in printable ASCII. */
  readonly metadata?: Readonly<Record<string, string>>;
}

/** What a call of `compute` may be told: which model, with what beside the tensors. */
export interface ComputeOptions extends CallOptions {
  /** Which model is meant. Default: the server's only one. */
  readonly model?: string;
  /** Whatever the compute function takes beside tensors; JSON. */
  readonly parameters?: Readonly<Record<string, JsonValue>>;
  /** The names of the outputs that are wanted. Default: all. */
  readonly outputs?: readonly string[];
}

/** The part of the options that belongs into the request. */
export function requestOptions({ model, parameters, outputs }: ComputeOptions): Omit<ComputeRequest, 'inputs'> {
  return {
    ...(model !== undefined && { model }),
    ...(parameters !== undefined && { parameters }),
    ...(outputs !== undefined && { outputs }),
  };
}
