import type { ChannelOptions } from '@grpc/grpc-js';
import { assertInteger } from '../check-options.js';
import { CommError } from '../errors.js';

/** 64 MiB: sixteen times gRPC's own default of 4 MiB, which one image batch exceeds. */
export const DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/**
 * Options that client and server share.
 *
 * @throws CommError `INVALID_ARGUMENT` for a limit that is none.
 */
export function messageLimits(maxMessageLength: number): ChannelOptions {
  assertInteger('maxMessageLength', maxMessageLength, 1);
  return {
    'grpc.max_receive_message_length': maxMessageLength,
    'grpc.max_send_message_length': maxMessageLength,
  };
}

/** @throws CommError `RESOURCE_EXHAUSTED` (reason `MESSAGE_TOO_LARGE`), naming both sizes, for what is too large to be sent. */
export function assertMessageLength(
  kind: 'request' | 'response',
  { byteLength }: { readonly byteLength: number },
  maxMessageLength: number,
): void {
  if (byteLength > maxMessageLength) throw messageTooLarge(kind, byteLength, maxMessageLength);
}

export function messageTooLarge(kind: 'request' | 'response', byteLength: number, maxMessageLength: number): CommError {
  return new CommError(
    'RESOURCE_EXHAUSTED',
    `the ${kind} has ${byteLength} bytes, more than maxMessageLength allows (${maxMessageLength}); ` +
      'raise it on client and server, or send less at once',
    { reason: MESSAGE_TOO_LARGE },
  );
}

export const MESSAGE_TOO_LARGE = 'MESSAGE_TOO_LARGE';

/** A client finds a server that came back within a second or so; grpc-js by itself waits up to two minutes. */
export const RECONNECT_OPTIONS: ChannelOptions = {
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.min_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 2_000,
};

/**
 * How much a peer may send before the other has read it: enough for 10 Gbit/s at a round trip of 13 ms, or for 16 MiB in
 * each round trip. HTTP/2's own 64 KiB allow a megabyte a second at 60 ms.
 */
export const STREAM_WINDOW_BYTES = 16 * 1024 * 1024;
