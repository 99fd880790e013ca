import { assertInteger, assertMs, MAX_TIMER_MS } from '../check-options.js';
import { supportedEncodings, type TensorEncoding } from '../codec/compression.js';
import { CommError } from '../errors.js';
import type { KeepAlive } from '../exchange/watchdog.js';
import { DEFAULT_MAX_MESSAGE_BYTES } from '../grpc/channel.js';
import { type ClientTlsOptions, clientCredentials } from '../grpc/tls.js';
import { assertToken } from '../grpc/token.js';
import type { Balancing } from './balancer.js';
import { NoRetry, type RetryStrategy } from './retry.js';

export interface GRPCComputeClientOptions {
  /** Milliseconds that a unary call may take, retries included. Default 60000; `Infinity` for no limit. */
  readonly timeoutMs?: number;
  /** The largest request or response, in bytes. Default 64 MiB, at most 4 GiB - 1. */
  readonly maxMessageLength?: number;
  /** When a failed unary call is made again. Default `NoRetry`. Streams are never retried. */
  readonly retry?: RetryStrategy;
  /** TLS, with `{}` for the authorities that Node.js trusts. Default: none, all travels in the clear. */
  readonly tls?: ClientTlsOptions;
  /** Sent with every call as `authorization: Bearer …`, for servers that ask for one. */
  readonly token?: string;
  /** Which of several servers a call goes to. Default `least-outstanding`: the one with the fewest calls under way. */
  readonly balancing?: Balancing;
  /**
   * How tensors travel, both ways, where the server can read and write it: `raw` (the default); `gzip` and `zstd`, without
   * loss; `float16`, `bfloat16` and `int8` for float32 tensors, with the loss that {@link TensorEncoding} tells; or `auto`,
   * which compresses without loss where the link turns out to be so slow that this is quicker.
   */
  readonly encoding?: TensorEncoding | 'auto';
  /**
   * Whether calls share one stream where the server can do that. Default true; false makes each call a gRPC call of its
   * own, as other clients do, at a fraction of the speed.
   */
  readonly exchange?: boolean;
  /**
   * Milliseconds to reach a server before a call fails as `UNAVAILABLE`. Default 20000. With `exchange: false` a call waits
   * as long as its own time lasts.
   */
  readonly connectTimeoutMs?: number;
  /**
   * Milliseconds without a sign of a server while calls wait, until it is asked for one; 20 seconds later it is given up.
   * Default 30000; `Infinity` for never.
   */
  readonly keepAliveMs?: number;
}

/** How long a server may take to give a sign when it is asked for one. */
const KEEP_ALIVE_TIMEOUT_MS = 20_000;
/** What gRPC's prefix can say of a message's length. */
const MAX_MESSAGE_BYTES = 2 ** 32 - 1;

export interface ClientSettings
  extends Required<Omit<GRPCComputeClientOptions, 'tls' | 'token' | 'keepAliveMs'>>,
    Pick<GRPCComputeClientOptions, 'tls' | 'token'> {
  readonly keepAlive: KeepAlive;
}

/** @throws CommError `INVALID_ARGUMENT`, naming the option, for what cannot be. */
export function clientSettings(options: GRPCComputeClientOptions): ClientSettings {
  const { timeoutMs = 60_000, maxMessageLength = DEFAULT_MAX_MESSAGE_BYTES, retry = new NoRetry() } = options;
  const { balancing = 'least-outstanding', encoding = 'raw', exchange = true } = options;
  const { connectTimeoutMs = 20_000, keepAliveMs = 30_000, tls, token } = options;
  assertMs('timeoutMs', timeoutMs);
  assertMs('connectTimeoutMs', connectTimeoutMs);
  assertMs('keepAliveMs', keepAliveMs);
  assertInteger('maxMessageLength', maxMessageLength, 1, MAX_MESSAGE_BYTES);
  assertOneOf('balancing', balancing, ['least-outstanding', 'round-robin']);
  assertOneOf('encoding', encoding, ['auto', ...supportedEncodings()]);
  if (token !== undefined) assertToken('token', token);
  // The connections of a name are made only when it has been looked up.
  if (tls) clientCredentials(tls);
  return {
    ...{ timeoutMs, maxMessageLength, retry, balancing, encoding, exchange },
    connectTimeoutMs: Math.min(connectTimeoutMs, MAX_TIMER_MS),
    keepAlive: { idleMs: keepAliveMs, timeoutMs: KEEP_ALIVE_TIMEOUT_MS },
    ...(tls && { tls }),
    ...(token !== undefined && { token }),
  };
}

function assertOneOf(option: string, value: string, known: readonly string[]): void {
  if (known.includes(value)) return;
  throw new CommError('INVALID_ARGUMENT', `${option} must be one of ${known.join(', ')}; it is '${String(value)}'`);
}
