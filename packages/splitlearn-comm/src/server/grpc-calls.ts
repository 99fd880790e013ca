import { once } from 'node:events';
import type { ServerDuplexStream, ServerUnaryCall, sendUnaryData } from '@grpc/grpc-js';
import { toBytes } from '../codec/wire.js';
import { findHttp2Stream } from '../grpc/internals.js';
import { fromMetadata } from '../grpc/metadata.js';
import { sessionRequests } from '../grpc/session-requests.js';
import { toStatus } from '../grpc/status.js';
import type { Answers, Outcome } from './async-compute-servicer.js';
import type { IncomingCall, OpenCall } from './call-context.js';

// Calls as gRPC has them: a stream of HTTP/2 for each. This is how every client but ours calls.

export type UnaryCall = ServerUnaryCall<Uint8Array, unknown>;
export type SessionCall = ServerDuplexStream<Uint8Array, Uint8Array>;
export type GrpcCall = UnaryCall | SessionCall;

/** Answers a unary call. */
export function serveUnary<T>(
  method: IncomingCall['method'],
  answers: Answers,
  answer: (message: Uint8Array, opened: OpenCall) => Promise<Outcome<T>>,
) {
  return async (call: UnaryCall, callback: sendUnaryData<unknown>): Promise<void> => {
    const opened = openCall(call, method, answers);
    const outcome = await answer(call.request, opened);
    if (outcome.ok) callback(null, outcome.value);
    else callback(toStatus(outcome.error));
  };
}

/** Answers a streaming call; it ends with the status that belongs to what was thrown. */
export function serveSession(answers: Answers) {
  return async (call: SessionCall): Promise<void> => {
    const opened = openCall(call, 'stream', answers);
    const messages = sessionRequests(call, opened.signal);
    const outcome = await answers.session(messages, opened, async (message) => {
      if (!call.write(toBytes(message))) await once(call, 'drain', { signal: opened.signal });
    });
    if (outcome.ok) call.end();
    else call.emit('error', toStatus(outcome.error));
  };
}

/**
 * How much before the deadline a cancellation still counts as the deadline's, but for short ones, where it is half of
 * the time. A caller cancels the call itself when its time is up, and by the server's clock, which starts when the call
 * is read, that is a little early.
 */
const DEADLINE_TOLERANCE_MS = 250;

/** Turns what grpc-js knows of a call (deadline, cancellation, metadata) into an open call. */
export function openCall(call: GrpcCall, method: IncomingCall['method'], answers: Answers): OpenCall {
  const deadline = Number(call.getDeadline());
  const deadlineMs = Number.isFinite(deadline) ? deadline : Number.POSITIVE_INFINITY;
  const toleranceMs = Math.min(DEADLINE_TOLERANCE_MS, (deadlineMs - Date.now()) / 2);
  const metadata = fromMetadata(call.metadata);
  const maxResponseBytes = answers.maxMessageLength;
  const { peer, certificate } = callerOf(call);
  const opened = answers.open({ peer, certificate, deadlineMs, metadata, method, base: 5, maxResponseBytes });
  // grpc-js says 'cancelled' at the end of every call, also of one that was answered.
  const end = () => {
    opened.cancel(Date.now() >= deadlineMs - toleranceMs);
    opened.end();
  };
  // It also begins calls that it has ended: their time was up, or they were reset, before their request was complete.
  const stream = findHttp2Stream(call);
  if (call.cancelled || stream?.destroyed || stream?.headersSent) end();
  else call.once('cancelled', end);
  return opened;
}

/** Who calls, as far as the network knows. */
export function callerOf(
  call: Pick<GrpcCall, 'getPeer' | 'getAuthContext'>,
): Pick<IncomingCall, 'peer' | 'certificate'> {
  return { peer: call.getPeer(), certificate: call.getAuthContext().sslPeerCertificate };
}
