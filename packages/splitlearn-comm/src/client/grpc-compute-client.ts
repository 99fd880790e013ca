import { randomUUID } from 'node:crypto';
import { credentials } from '@grpc/grpc-js';
import { mapAsync } from '../async-iterables.js';
import { assertMs } from '../check-options.js';
import { decodeServiceInfo, type WireServiceInfo } from '../codec/service-info.js';
import { decodeResponse, encodeRequest, type ServerTiming } from '../codec/wire.js';
import type { ComputeRequest, ComputeResponse } from '../compute-function.js';
import { CommError } from '../errors.js';
import { assertMessageLength, DEFAULT_MAX_MESSAGE_BYTES } from '../grpc/channel.js';
import { COMPUTE_SERVICE } from '../grpc/service.js';
import { CallRecorder, type CallStatistics } from '../statistics.js';
import type { Tensor, Tensors } from '../tensor.js';
import { type CallOptions, type ComputeOptions, requestOptions } from './call-options.js';
import { unaryCall, type WireCallOptions } from './channel-calls.js';
import { Connection, type Encode } from './connection.js';
import { checkHealth, type HealthStatus } from './health.js';
import { NoRetry, type RetryStrategy, withRetry } from './retry.js';

export interface GRPCComputeClientOptions {
  /** Milliseconds that a unary call may take, retries included. Default 60000; `Infinity` for no limit. */
  readonly timeoutMs?: number;
  /** The largest request or response, in bytes. Default 64 MiB. */
  readonly maxMessageLength?: number;
  /**
   * Whether calls share one stream where the server can do that. Default true; false makes each call a gRPC call of its
   * own, as other clients do, at a fraction of the speed.
   */
  readonly exchange?: boolean;
  /** Milliseconds to reach the server before a call fails as `UNAVAILABLE`. Default 20000. */
  readonly connectTimeoutMs?: number;
  /** Milliseconds without a sign of the server, while calls wait, until it is asked for one. Default 30000; `Infinity`: never. */
  readonly keepAliveMs?: number;
  /** When a failed unary call is made again. Default `NoRetry`. Streams are never retried. */
  readonly retry?: RetryStrategy;
}

/** Where a call's time went, in milliseconds. */
export interface CallTiming extends ServerTiming {
  /** From the call to its result, as the caller saw it; of the last attempt where there were several. */
  readonly totalMs: number;
  /** `totalMs` less `serverMs`: encoding, network, and gRPC on both sides. */
  readonly networkMs: number;
}

/**
 * Calls the compute function of a server. Connects by itself on the first call, and again when the connection is lost.
 *
 * Every method throws `CommError`s: `UNAVAILABLE` when the server cannot be reached, `DEADLINE_EXCEEDED`, `CANCELLED`,
 * `INVALID_ARGUMENT` for what the server refuses, and what else the compute function throws.
 *
 * @example
 * const client = new GRPCComputeClient('127.0.0.1:50051');
 * const y = await client.compute(tensor([1, 2, 3]));
 */
export class GRPCComputeClient {
  /** The address, as it was given. */
  readonly address: string;
  readonly #connection: Connection;
  readonly #timeoutMs: number;
  readonly #retry: RetryStrategy;
  readonly #calls = new CallRecorder();
  #closed = false;

  /** @param address - `host:port`, or `unix:/absolute/path` for a unix socket. */
  constructor(address: string, options: GRPCComputeClientOptions = {}) {
    const { timeoutMs = 60_000, maxMessageLength = DEFAULT_MAX_MESSAGE_BYTES, retry = new NoRetry() } = options;
    if (typeof address !== 'string' || !/^(unix:.+|.+:\d+)$/.test(address)) {
      throw new CommError('INVALID_ARGUMENT', `'${address}' is no address: give host:port, or unix:/path of a socket`);
    }
    assertMs('timeoutMs', timeoutMs);
    this.address = address;
    this.#timeoutMs = timeoutMs;
    this.#retry = retry;
    this.#connection = new Connection(address, {
      credentials: credentials.createInsecure(),
      maxMessageLength,
      exchange: options.exchange ?? true,
      keepAlive: { idleMs: options.keepAliveMs ?? 30_000, timeoutMs: 20_000 },
      connectTimeoutMs: options.connectTimeoutMs ?? 20_000,
    });
  }

  /**
   * Connects now instead of on the first call.
   *
   * @param options - `timeoutMs`: how long to try. Default 5000.
   * @throws CommError `UNAVAILABLE` when no server answers in time.
   */
  async connect({ timeoutMs = 5_000 }: { timeoutMs?: number } = {}): Promise<void> {
    this.#assertOpen();
    assertMs('timeoutMs', timeoutMs);
    await this.#connection.connect(timeoutMs);
  }

  /** Closes the connection; calls that are under way finish first. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#connection.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** One tensor in, sent as `input`; one tensor out, whatever its name. */
  compute(input: Tensor, options?: ComputeOptions): Promise<Tensor>;
  /** Named tensors in, named tensors out. */
  compute(inputs: Tensors, options?: ComputeOptions): Promise<Tensors>;
  async compute(input: Tensor | Tensors, options: ComputeOptions = {}): Promise<Tensor | Tensors> {
    const { outputs } = await this.computeWithTiming(input as Tensors, options);
    return outputs;
  }

  /** Like `compute`, and says where the time went. */
  computeWithTiming(input: Tensor, options?: ComputeOptions): Promise<{ outputs: Tensor; timing: CallTiming }>;
  computeWithTiming(inputs: Tensors, options?: ComputeOptions): Promise<{ outputs: Tensors; timing: CallTiming }>;
  async computeWithTiming(input: Tensor | Tensors, options: ComputeOptions = {}) {
    const single = isTensor(input);
    const request = { ...requestOptions(options), inputs: single ? { input } : input };
    const { response, timing } = await this.#call(request, options);
    return { outputs: single ? onlyOutput(response.outputs) : response.outputs, timing };
  }

  /** Makes a whole request: what `compute` does, for callers that pass requests on. */
  async call(request: ComputeRequest, options: CallOptions = {}): Promise<ComputeResponse> {
    return (await this.#call(request, options)).response;
  }

  /**
   * A session. Requests are sent as they come and responses yielded as they come; leaving the loop cancels the call.
   *
   * @param requests - Requests, or tensors to make requests of with `options.model`, `parameters` and `outputs`.
   */
  async *stream(
    requests: AsyncIterable<ComputeRequest> | Iterable<ComputeRequest>,
    options: ComputeOptions = {},
  ): AsyncGenerator<ComputeResponse, void> {
    this.#assertOpen();
    const wire = this.#wireOptions(options, Number.POSITIVE_INFINITY);
    const finish = this.#calls.begin();
    const requestId = options.requestId ?? randomUUID();
    const defaults = requestOptions(options);
    const encode = (request: ComputeRequest) => this.#encoder({ ...defaults, ...request }, requestId);
    let failure: CommError | undefined = new CommError('CANCELLED', 'the reader left the stream');
    try {
      const messages = this.#connection.session(mapAsync(requests, encode), wire);
      for await (const message of messages) yield decodeResponse(this.#calls.received(message)).response;
      failure = undefined;
    } catch (error) {
      failure = CommError.from(error);
      throw error;
    } finally {
      finish(failure?.code);
    }
  }

  /**
   * Asks the server's `grpc.health.v1.Health` service.
   *
   * @param service - Default: the server as a whole.
   * @throws CommError `NOT_FOUND` for a service that the server does not know.
   */
  async healthCheck(service = '', options: CallOptions = {}): Promise<HealthStatus> {
    this.#assertOpen();
    return checkHealth(this.#connection.channel, this.address, service, this.#wireOptions(options));
  }

  /** What the server serves. */
  async getServiceInfo(options: CallOptions = {}): Promise<WireServiceInfo> {
    this.#assertOpen();
    const wire = this.#wireOptions(options);
    return decodeServiceInfo(
      await unaryCall(this.#connection.channel, this.address, COMPUTE_SERVICE.GetServiceInfo, new Uint8Array(), wire),
    );
  }

  getStatistics(): CallStatistics {
    return this.#calls.read();
  }

  async #call(request: ComputeRequest, options: CallOptions) {
    const finish = this.#calls.begin();
    try {
      const requestId = options.requestId ?? randomUUID();
      const wire = this.#wireOptions(options);
      const result = await withRetry(this.#retry, wire, async () => {
        this.#assertOpen();
        const startedMs = performance.now();
        const answer = await this.#connection.unary(this.#encoder(request, requestId), wire);
        const { response, timing } = decodeResponse(this.#calls.received(answer));
        const totalMs = performance.now() - startedMs;
        return { response, timing: { ...timing, totalMs, networkMs: Math.max(0, totalMs - timing.serverMs) } };
      });
      finish();
      return result;
    } catch (error) {
      finish(CommError.from(error).code);
      throw error;
    }
  }

  #encoder(request: ComputeRequest, requestId: string): Encode {
    return (base, maxBytes) => {
      const message = encodeRequest(request, requestId, { base });
      assertMessageLength('request', message, maxBytes);
      return this.#calls.sent(message);
    };
  }

  #wireOptions(options: CallOptions, defaultTimeoutMs = this.#timeoutMs): WireCallOptions {
    const { timeoutMs = defaultTimeoutMs, signal, metadata } = options;
    assertMs('timeoutMs', timeoutMs);
    return { deadlineMs: Date.now() + timeoutMs, signal, metadata };
  }

  #assertOpen(): void {
    if (this.#closed) throw new CommError('FAILED_PRECONDITION', `the client of ${this.address} has been closed`);
  }
}

function isTensor(value: Tensor | Tensors): value is Tensor {
  return typeof value?.dtype === 'string' && Array.isArray(value.shape);
}

function onlyOutput(outputs: Tensors): Tensor {
  const [only, ...others] = Object.values(outputs);
  if (only && others.length === 0) return only;
  const names = Object.keys(outputs).join(', ') || 'none';
  throw new CommError(
    'FAILED_PRECONDITION',
    `the answer has not exactly one output but: ${names}; pass named tensors, as in compute({ input }), to get them by name`,
  );
}
