import { ChannelCredentials, Client } from '@grpc/grpc-js';
import { mapAsync } from '../async-iterables.js';
import { MAX_TIMER_MS } from '../check-options.js';
import { BandwidthEstimate } from '../codec/encodings/bandwidth-estimate.js';
import { decodeServiceInfo, type WireServiceInfo } from '../codec/service-info.js';
import { type EncodedMessage, toBytes } from '../codec/wire.js';
import { CommError } from '../errors.js';
import { ClientExchange } from '../exchange/client-exchange.js';
import { messageLimits, RECONNECT_OPTIONS, STREAM_WINDOW_BYTES } from '../grpc/channel.js';
import { COMPUTE_SERVICE } from '../grpc/service.js';
import { clientCredentials } from '../grpc/tls.js';
import { AUTHORIZATION, bearer } from '../grpc/token.js';
import { abortError, onAbort } from '../signals.js';
import type { Tensors } from '../tensor.js';
import { streamCall, unaryCall, type WireCallOptions } from './channel-calls.js';
import type { ClientSettings } from './client-options.js';
import { type EncodedTensors, TensorEncoder } from './tensor-encoder.js';

/**
 * Makes the message for where in its buffer it will begin.
 *
 * @throws CommError `RESOURCE_EXHAUSTED` (reason `MESSAGE_TOO_LARGE`) for one of more than `maxBytes`.
 */
export type Encode = (base: 0 | 5, maxBytes: number) => EncodedMessage;

/** The connection to one address: calls travel on an Exchange, or one by one where the server has none. */
export class Connection {
  readonly address: string;
  /** How fast the link has shown itself to be. */
  readonly link = new BandwidthEstimate();
  readonly #settings: ClientSettings;
  readonly #metadata: Readonly<Record<string, string>>;
  readonly #newClient: () => Client;
  #client: Client;
  #exchange: ClientExchange | undefined;
  #opening: Promise<ClientExchange | undefined> | undefined;
  #hasExchange = true;
  #closed = false;
  #tensorEncoder: Promise<TensorEncoder> | undefined;
  inFlight = 0;

  /** @param serverName - The name that the address was looked up for, which a certificate is for. */
  constructor(address: string, settings: ClientSettings, serverName?: string) {
    this.address = address;
    this.#settings = settings;
    this.#metadata = settings.token === undefined ? {} : { [AUTHORIZATION]: bearer(settings.token) };
    this.#newClient = () => newClient(address, settings, serverName);
    this.#client = this.#newClient();
  }

  /** Whether a call need not wait for the connection. */
  get isOpen(): boolean {
    return !this.#settings.exchange || !this.#hasExchange || this.#exchange?.usable === true;
  }

  /** Whether tensors may travel in another form than their own. */
  get encodesTensors(): boolean {
    return this.#settings.encoding !== 'raw';
  }

  /** Encodes tensors as the client was told to, and the server says it can read. */
  async encodeTensors(tensors: Tensors, options: WireCallOptions): Promise<EncodedTensors | undefined> {
    if (!this.encodesTensors) return undefined;
    const encode = async () => {
      // Not this call's time and signal: others may wait for the answer as well.
      const { connectTimeoutMs, encoding } = this.#settings;
      const asking = { deadlineMs: Date.now() + connectTimeoutMs, metadata: options.metadata };
      this.#tensorEncoder ??= this.serviceInfo(asking).then(
        ({ encodings }) => new TensorEncoder(encoding, encodings, this.link),
        (error: unknown) => {
          // A server that says nothing of itself, or not to us, can read what every server can.
          if (SAYS_NOTHING.has(CommError.from(error).code)) return new TensorEncoder(encoding, [], this.link);
          throw error;
        },
      );
      try {
        return await (await this.#tensorEncoder).encode(tensors);
      } catch (error) {
        this.#tensorEncoder = undefined;
        throw error;
      }
    };
    return this.#inTime(encode(), options);
  }

  async serviceInfo(options: WireCallOptions): Promise<WireServiceInfo> {
    const { GetServiceInfo } = COMPUTE_SERVICE;
    const info = await unaryCall(this.#client, this.address, GetServiceInfo, new Uint8Array(), this.#own(options));
    return decodeServiceInfo(info);
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
        reject(new CommError('UNAVAILABLE', message, { reason: 'NOT_SENT', cause }));
      });
    });
    if (this.#settings.exchange) await this.#withExchange(options);
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
      // Encoded before anything is waited for, where that can be: afterwards the caller may change its tensors.
      const open = this.#exchange?.usable ? this.#exchange : undefined;
      const wantsExchange = this.#settings.exchange && this.#hasExchange;
      const exchange = open ?? (wantsExchange ? await this.#withExchange(options) : undefined);
      if (exchange) return await exchange.unary(encode(0, exchange.maxRequestBytes), options);
      const bytes = toBytes(encode(5, this.#settings.maxMessageLength));
      return await unaryCall(this.#client, this.address, COMPUTE_SERVICE.Compute, bytes, this.#own(options));
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
        const messages = mapAsync(requests, (encode) => toBytes(encode(5, this.#settings.maxMessageLength)));
        yield* streamCall(this.#client, this.address, COMPUTE_SERVICE.ComputeStream, messages, this.#own(options));
      }
    } finally {
      this.inFlight--;
    }
  }

  /** The Exchange, opened if need be; undefined where the server has none, or it is not wanted. */
  async #withExchange(options: WireCallOptions): Promise<ClientExchange | undefined> {
    if (options.signal?.aborted) throw abortError(options.signal);
    if (!this.#settings.exchange || !this.#hasExchange) return undefined;
    if (this.#exchange?.usable) return this.#exchange;
    this.#opening ??= this.#open().finally(() => (this.#opening = undefined));
    return this.#inTime(this.#opening, options);
  }

  /** Waits for something no longer than a call has time. It goes on, as others may wait for it as well. */
  async #inTime<T>(work: Promise<T>, { deadlineMs, signal }: WireCallOptions): Promise<T> {
    let stop = () => {};
    const overdue = new Promise<never>((_, reject) => {
      const leftMs = deadlineMs - Date.now();
      const expire = () =>
        reject(new CommError('DEADLINE_EXCEEDED', `no connection to the server at ${this.address} in time`));
      const timer = leftMs <= MAX_TIMER_MS ? setTimeout(expire, Math.max(0, leftMs)) : undefined;
      if (signal?.aborted) reject(abortError(signal));
      const ignore = signal && onAbort(signal, () => reject(abortError(signal)));
      stop = () => {
        clearTimeout(timer);
        ignore?.();
      };
    });
    try {
      return await Promise.race([work, overdue]);
    } finally {
      stop();
    }
  }

  /** The network connection is of no use any more, which grpc-js does not know: it would go on with it. */
  #abandon(): void {
    const abandoned = this.#client;
    if (!this.#closed) this.#client = this.#newClient();
    abandoned.close();
  }

  /** A call of its own carries what an Exchange says once for all calls on it. */
  #own(options: WireCallOptions): WireCallOptions {
    return { ...options, metadata: { ...this.#metadata, ...options.metadata } };
  }

  async #open(): Promise<ClientExchange | undefined> {
    const { maxMessageLength, keepAlive, connectTimeoutMs } = this.#settings;
    try {
      const exchange = await ClientExchange.open(this.#client, {
        ...{ address: this.address, metadata: this.#metadata, maxMessageLength, keepAlive },
        timeoutMs: connectTimeoutMs,
        abandon: () => this.#abandon(),
      });
      if (this.#closed) exchange.close();
      this.#exchange = exchange;
      // Another server may be there now, which reads other encodings.
      this.#tensorEncoder = undefined;
      return exchange;
    } catch (error) {
      if (!(error instanceof CommError) || error.code !== 'UNIMPLEMENTED') throw error;
      this.#hasExchange = false;
      return undefined;
    }
  }
}

const SAYS_NOTHING = new Set(['UNIMPLEMENTED', 'PERMISSION_DENIED', 'UNAUTHENTICATED']);
const GRPC_KEEP_ALIVE_MS = 5 * 60_000;
const INSECURE = { credentials: ChannelCredentials.createInsecure(), channelOptions: {} };

function newClient(address: string, settings: ClientSettings, serverName: string | undefined): Client {
  const tls = settings.tls && { ...(serverName !== undefined && { serverName }), ...settings.tls };
  const { credentials, channelOptions } = tls ? clientCredentials(tls) : INSECURE;
  return new Client(address, credentials, {
    ...messageLimits(settings.maxMessageLength),
    ...RECONNECT_OPTIONS,
    // Two clients must not share a connection, as grpc-js lets them: the bulk right is one for each connection.
    'grpc.use_local_subchannel_pool': 1,
    // Large in one direction only, where no bulk right keeps two peers from waiting for each other.
    ...(settings.exchange && { 'grpc-node.flow_control_window': STREAM_WINDOW_BYTES }),
    // For plain gRPC calls. More often than every five minutes, servers of other makes take for abuse
    // (https://github.com/grpc/grpc/blob/master/doc/keepalive.md).
    'grpc.keepalive_time_ms': Math.min(Math.max(settings.keepAlive.idleMs, GRPC_KEEP_ALIVE_MS), MAX_TIMER_MS),
    'grpc.keepalive_timeout_ms': settings.keepAlive.timeoutMs,
    ...channelOptions,
  });
}
