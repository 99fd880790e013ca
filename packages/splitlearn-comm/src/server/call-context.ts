import { randomUUID } from 'node:crypto';
import type { ServerDuplexStream, ServerUnaryCall } from '@grpc/grpc-js';
import type { CallContext } from '../compute-function.js';
import { CommError } from '../errors.js';

export type ServerCall = ServerUnaryCall<Uint8Array, Uint8Array> | ServerDuplexStream<Uint8Array, Uint8Array>;

/** A call that is under way. */
export interface OpenCall {
  /** The call's id: the server's own until the caller's is read from the request. */
  requestId: string;
  readonly signal: AbortSignal;
  /** What the compute function is told of the call. */
  context(): CallContext;
  /** Ends the call from the server's side. */
  abort(reason: CommError): void;
}

/** Turns what grpc-js knows of a call (deadline, cancellation, metadata) into a context for the compute function. */
export function openCall(call: ServerCall): OpenCall {
  const controller = new AbortController();
  const deadlineMs = Number(call.getDeadline());
  const hasDeadline = Number.isFinite(deadlineMs);
  const cancel = () => {
    const expired = hasDeadline && Date.now() >= deadlineMs;
    controller.abort(
      expired
        ? new CommError('DEADLINE_EXCEEDED', "the caller's deadline has passed")
        : new CommError('CANCELLED', 'the caller cancelled the call, or its connection was lost'),
    );
  };
  if (call.cancelled) cancel();
  else call.once('cancelled', cancel);
  const { signal } = controller;
  return {
    requestId: randomUUID(),
    signal,
    context() {
      const { requestId } = this;
      return { signal, requestId, metadata: textMetadata(call), ...(hasDeadline && { deadlineMs }) };
    },
    abort: (reason) => controller.abort(reason),
  };
}

/** What the transport itself sends, and no caller put there. */
const TRANSPORT = /^(grpc-|user-agent$|content-type$|te$)/;

function textMetadata(call: ServerCall): Readonly<Record<string, string>> {
  const entries = Object.entries(call.metadata.getMap());
  return Object.fromEntries(
    entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string' && !TRANSPORT.test(entry[0])),
  );
}
