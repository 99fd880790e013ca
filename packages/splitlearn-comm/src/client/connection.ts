import { type ChannelCredentials, type ChannelOptions, Client } from '@grpc/grpc-js';
import { mapAsync } from '../async-iterables.js';
import { MAX_TIMER_MS } from '../check-options.js';
import { type EncodedMessage, toBytes } from '../codec/wire.js';
import { CommError } from '../errors.js';
import { ClientExchange } from '../exchange/client-exchange.js';
import type { KeepAlive } from '../exchange/watchdog.js';
import { messageLimits, RECONNECT_OPTIONS, STREAM_WINDOW_BYTES } from '../grpc/channel.js';
import { COMPUTE_SERVICE } from '../grpc/service.js';
import { abortError, onAbort } from '../signals.js';
import { streamCall, unaryCall, type WireCallOptions } from './channel-calls.js';

export interface ConnectionOptions {
  readonly credentials: ChannelCredentials;
  readonly channelOptions?: ChannelOptions | undefined;
  readonly maxMessageLength: number;
  /** Whether calls share one stream where the server can do that; else each is a gRPC call. */
  readonly exchange: boolean;
  readonly keepAlive: KeepAlive;
  readonly connectTimeoutMs: number;
}

/**
 * Makes the message for where in its buffer it will begin.
 *
 * @throws CommError `RESOURCE_EXHAUSTED` (reason `MESSAGE_TOO_LARGE`) for one of more than `maxBytes`.
 */
export type Encode = (base: 0 | 5, maxBytes: number) => EncodedMessage;

/** The connection to one address: calls travel on an Exchange, or one by one where the server has none. */
export class Connection {
  readonly address: string;
  readonly #options: ConnectionOptions;
  #client: Client;
  #exchange: ClientExchange | undefined;
  #opening: Promise<ClientExchange | undefined> | undefined;
  #hasExchange = true;
  #closed = false;
  inFlight = 0;

  constructor(address: string, options: ConnectionOptions) {
    this.address = address;
    this.#options = options;
    this.#client = this.#newClient();
  }

  /** For calls beside the compute service's: health, service info. */
  get channel(): Client {
    return this.#client;
  }

  /** Connects now. */
  async connect(timeoutMs: number): Promise<void> {
    const options = { deadlineMs: Date.now() + timeoutMs };
    await new Promise<void>((resolve, reject) => {
      this.#client.waitForReady(options.deadlineMs, (cause) => {
        if (!cause) return resolve();
        const message = `no server answered at ${this.address} within ${timeoutMs} ms; check the address, and that the server runs`;
        reject(new CommError('UNAVAILABLE', message, { cause }));
      });
    });
    if (this.#options.exchange) await this.#withExchange(options);
  }

  /** Calls that are under way finish first. */
  close(): void {
    this.#closed = true;
    this.#exchange?.close();
    this.#client.close();
  }

  async unary(encode: Encode, options: WireCallOptions): Promise<Uint8Array> {
    this.inFlight++;
    try {
      const exchange = this.#exchange?.usable ? this.#exchange : await this.#withExchange(options);
      if (exchange) {
        return await exchange.unary(encode(0, exchange.maxRequestBytes), options);
      }
      const { Compute } = COMPUTE_SERVICE;
      return await unaryCall(
        this.#client,
        this.address,
        Compute,
        toBytes(encode(5, this.#options.maxMessageLength)),
        options,
      );
    } finally {
      this.inFlight--;
    }
  }

  async *session(requests: AsyncIterable<Encode>, options: WireCallOptions): AsyncGenerator<Uint8Array, void> {
    this.inFlight++;
    try {
      const exchange = await this.#withExchange(options);
      if (exchange) {
        const messages = mapAsync(requests, (encode) => encode(0, exchange.maxRequestBytes));
        yield* exchange.session(messages, options);
      } else {
        const messages = mapAsync(requests, (encode) => toBytes(encode(5, this.#options.maxMessageLength)));
        yield* streamCall(this.#client, this.address, COMPUTE_SERVICE.ComputeStream, messages, options);
      }
    } finally {
      this.inFlight--;
    }
  }

  /** The Exchange, opened if need be; undefined where the server has none, or it is not wanted. */
  async #withExchange({ deadlineMs, signal }: WireCallOptions): Promise<ClientExchange | undefined> {
    if (signal?.aborted) throw abortError(signal);
    if (!this.#options.exchange || !this.#hasExchange) return undefined;
    if (this.#exchange?.usable) return this.#exchange;
    this.#opening ??= this.#open().finally(() => (this.#opening = undefined));
    // The connection may take longer than this call has time, and others may wait for it as well.
    let stop = () => {};
    const overdue = new Promise<never>((_, reject) => {
      const leftMs = deadlineMs - Date.now();
      const expire = () =>
        reject(new CommError('DEADLINE_EXCEEDED', `no connection to the server at ${this.address} in time`));
      const timer = leftMs <= MAX_TIMER_MS ? setTimeout(expire, Math.max(0, leftMs)) : undefined;
      const ignore = signal && onAbort(signal, () => reject(abortError(signal)));
      stop = () => {
        clearTimeout(timer);
        ignore?.();
      };
    });
    try {
      return await Promise.race([this.#opening, overdue]);
    } finally {
      stop();
    }
  }

  async #open(): Promise<ClientExchange | undefined> {
    const { maxMessageLength, keepAlive, connectTimeoutMs } = this.#options;
    try {
      const timeout = { address: this.address, maxMessageLength, keepAlive, timeoutMs: connectTimeoutMs };
      const exchange = await ClientExchange.open(this.#client, timeout);
      if (this.#closed) exchange.close();
      this.#exchange = exchange;
      return exchange;
    } catch (error) {
      if (!(error instanceof CommError) || error.code !== 'UNIMPLEMENTED') throw error;
      this.#hasExchange = false;
      return undefined;
    }
  }

  #newClient(): Client {
    const { credentials, channelOptions, maxMessageLength, exchange } = this.#options;
    return new Client(this.address, credentials, {
      ...messageLimits(maxMessageLength),
      ...RECONNECT_OPTIONS,
      // Large in one direction only, where no bulk right keeps two peers from waiting for each other.
      ...(exchange && { 'grpc-node.flow_control_window': STREAM_WINDOW_BYTES }),
      ...channelOptions,
    });
  }
}
