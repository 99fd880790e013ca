import { randomUUID } from 'node:crypto';
import type { ServerDuplexStream, ServerUnaryCall } from '@grpc/grpc-js';
import type { CallContext } from '../compute-function.js';
import { CommError } from '../errors.js';
import { fromMetadata } from '../grpc/metadata.js';

export type ServerCall = ServerUnaryCall<Uint8Array, Uint8Array> | ServerDuplexStream<Uint8Array, Uint8Array>;

/** A call that is under way. */
export interface OpenCall {
  /** The call's id: the server's own until the caller's is read from the request. */
  requestId: string;
  readonly signal: AbortSignal;
  /** Rejects with the reason when the call is ended from the server's side. */
  readonly aborted: Promise<never>;
  /** Resolves when all of the answer has been sent, or nobody is there any more to take it. */
  readonly over: Promise<void>;
  /** What the compute function is told of the call. */
  context(): CallContext;
  /** Ends the call from the server's side. */
  abort(reason: CommError): void;
  /** The answer is known: from here on nothing can be aborted. */
  answered(): void;
}

/**
 * How much before the deadline a cancellation still counts as the deadline's, but for short ones, where it is half of
 * the time. A caller cancels the call itself when its time is up, and by the server's clock, which starts when the call
 * is read, that is a little early.
 */
const DEADLINE_TOLERANCE_MS = 250;

/** Turns what grpc-js knows of a call (deadline, cancellation, metadata) into a context for the compute function. */
export function openCall(call: ServerCall): OpenCall {
  const controller = new AbortController();
  const { signal } = controller;
  const deadlineMs = Number(call.getDeadline());
  const hasDeadline = Number.isFinite(deadlineMs);
  const toleranceMs = Math.min(DEADLINE_TOLERANCE_MS, (deadlineMs - Date.now()) / 2);
  let answered = false;
  const cancel = () => {
    if (answered) return;
    const expired = hasDeadline && Date.now() >= deadlineMs - toleranceMs;
    controller.abort(
      expired
        ? new CommError('DEADLINE_EXCEEDED', "the caller's deadline has passed")
        : new CommError('CANCELLED', 'the caller cancelled the call, or its connection was lost'),
    );
  };
  // grpc-js says 'cancelled' at the end of every call, also of one that was answered.
  const over = new Promise<void>((resolve) => {
    const end = () => {
      cancel();
      resolve();
    };
    if (call.cancelled) end();
    else call.once('cancelled', end);
  });
  let reject: (reason: CommError) => void;
  const aborted = new Promise<never>((_, refuse) => (reject = refuse));
  return {
    requestId: randomUUID(),
    signal,
    aborted,
    over,
    context() {
      const { requestId } = this;
      return { signal, requestId, metadata: fromMetadata(call.metadata), ...(hasDeadline && { deadlineMs }) };
    },
    abort(reason) {
      controller.abort(reason);
      reject(reason);
    },
    answered() {
      answered = true;
    },
  };
}
