import type { ChannelOptions } from '@grpc/grpc-js';

/** 64 MiB: sixteen times gRPC's own default of 4 MiB, which one image batch exceeds. */
export const DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** Options that client and server share. */
export function messageLimits(maxMessageLength: number): ChannelOptions {
  return {
    'grpc.max_receive_message_length': maxMessageLength,
    'grpc.max_send_message_length': maxMessageLength,
  };
}

/** A client finds a server that came back within a second or so; grpc-js by itself waits up to two minutes. */
export const RECONNECT_OPTIONS: ChannelOptions = {
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.min_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 2_000,
};
