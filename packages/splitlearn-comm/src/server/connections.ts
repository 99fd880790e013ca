import {
  constants,
  type Http2SecureServer,
  type Http2Server,
  type Http2Session,
  type ServerHttp2Session,
} from 'node:http2';
import type { Socket } from 'node:net';
import { Server as TlsServer } from 'node:tls';
import type { ChannelOptions, Server } from '@grpc/grpc-js';
import { assertInteger, MAX_TIMER_MS } from '../check-options.js';
import { CommError } from '../errors.js';
import { findListeners } from '../grpc/internals.js';
import type { Logger } from '../logger.js';
import { WatchedStream } from './watched-stream.js';

/**
 * What one peer, or many together, may take of a server before it has answered anything. A peer that goes beyond is
 * cut off; none of these limits how long a call may compute, nor how long a session may be silent between messages.
 *
 * What Node.js limits by itself is not here: streams that are opened and reset at once (CVE-2023-44487: 1000, then 33 per
 * second and connection), pings and settings whose answers nobody reads (1000), invalid and empty frames (1000), streams
 * beyond those allowed (100), and continuations without end. Its HTTP/2 fixes come with its releases: keep it current.
 */
export interface ConnectionLimits {
  /** How many connections there may be at once; further ones are closed as they come. Default 1024. */
  readonly maxConnections?: number;
  /**
   * Milliseconds from a connection's beginning to the peer's HTTP/2 settings, with TLS in between; a quarter more may
   * pass. Default 10000; `Infinity` for no limit.
   */
  readonly handshakeTimeoutMs?: number;
  /** How many calls and sessions one connection may have at once; a client keeps further ones waiting. Default 1024. */
  readonly maxStreamsPerConnection?: number;
  /**
   * How much metadata a call may have: names and values in bytes, and 32 for each entry. More is `RESOURCE_EXHAUSTED`
   * (reason `METADATA_TOO_LARGE`); four times as much is cut off while it is read, and `RESOURCE_EXHAUSTED` without a
   * reason. At least 1024. Default 16384.
   */
  readonly maxMetadataBytes?: number;
  /**
   * Milliseconds after which a call is ended because its peer has sent a part of a message and no more, does not end
   * what it began to ask, or does not read what is waiting for it; a quarter more may pass. Less than 1 KiB counts as
   * nothing. The caller sees `DEADLINE_EXCEEDED` (reason `SLOW_PEER`), or `CANCELLED` when an answer had begun. Default
   * 30000; `Infinity` for no limit.
   */
  readonly slowPeerTimeoutMs?: number;
  /**
   * Milliseconds after which a connection from which nothing has come is asked for a sign of life (an HTTP/2 ping, which
   * peers answer by themselves); when there is none for as long again, it is closed. That is how peers are found that are
   * gone without a word, as a machine without power, and connections that node itself has given up, and no longer reads,
   * because their peer broke the protocol or one of node's limits. Default 60000; `Infinity` for no limit.
   */
  readonly silentPeerTimeoutMs?: number;
}

/** How a server's connections have gone since it was made. */
export interface ConnectionStatistics {
  /** Connections there are now, those that are still shaking hands among them. */
  readonly connections: number;
  /** Connections that were closed as they came, because there were `maxConnections`. */
  readonly refused: number;
  /** Connections that were closed because they said nothing useful within `handshakeTimeoutMs`. */
  readonly handshakeTimeouts: number;
  /** Calls that were ended because their peer was stuck for `slowPeerTimeoutMs`. */
  readonly slowPeers: number;
  /** Connections that were closed because nothing came from them, not even on request, for twice `silentPeerTimeoutMs`. */
  readonly silentPeers: number;
}

type Listener = Http2Server | Http2SecureServer;

interface Connection {
  readonly socket: Socket;
  readonly listener: Listener;
  /** Once it speaks HTTP/2. */
  session: ServerHttp2Session | undefined;
  /** Whether the peer's settings have come. */
  hasShakenHands: boolean;
  /** Sweeps since it came, or since anything came from it. */
  silentSweeps: number;
  bytesRead: number;
}

/** How often, within the shortest timeout, is looked whether something is stuck. */
const SWEEPS_PER_TIMEOUT = 4;
/** How much metadata is read, as a multiple of what is accepted: what is read can be refused with a clear message. */
const READ_METADATA_FACTOR = 4;
/** What RFC 9113 (6.5.2) adds to every header. */
const HEADER_OVERHEAD_BYTES = 32;

/**
 * Watches the connections of a grpc-js server, cuts off those that go beyond the limits, and can close all of them by
 * force. `forceShutdown` cannot: where `tryShutdown` has begun to close a connection, node only ends its own side and
 * waits for the peer to do the same, for ever where the peer is gone or never spoke HTTP/2.
 *
 * @example
 * const guard = new ConnectionGuard({}, console);
 * const server = new Server(guard.channelOptions);
 * server.bindAsync(address, credentials, () => guard.watch(server));
 */
export class ConnectionGuard {
  /** Options for the grpc-js server. */
  readonly channelOptions: ChannelOptions;
  readonly #logger: Logger;
  readonly #maxConnections: number;
  readonly #maxMetadataBytes: number;
  readonly #slowPeerTimeoutMs: number;
  readonly #sweepMs: number;
  readonly #handshakeSweeps: number;
  readonly #slowPeerSweeps: number;
  readonly #silentPeerSweeps: number;
  readonly #listeners = new Map<Listener, number>();
  readonly #connections = new Map<Socket, Connection>();
  readonly #bySession = new WeakMap<Http2Session, WeakRef<Connection>>();
  readonly #streams = new Set<WatchedStream>();
  #tracesHandshakes = true;
  #sweeper: NodeJS.Timeout | undefined;
  #refused = 0;
  #handshakeTimeouts = 0;
  #slowPeers = 0;
  #silentPeers = 0;

  /** @throws CommError `INVALID_ARGUMENT`, naming the option, for a limit that is none. */
  constructor(limits: ConnectionLimits, logger: Logger) {
    const { maxConnections = 1024, handshakeTimeoutMs = 10_000, maxStreamsPerConnection = 1024 } = limits;
    const { maxMetadataBytes = 16 * 1024, slowPeerTimeoutMs = 30_000, silentPeerTimeoutMs = 60_000 } = limits;
    assertInteger('maxConnections', maxConnections, 1);
    assertInteger('maxStreamsPerConnection', maxStreamsPerConnection, 1, 2 ** 32 - 1);
    assertInteger('maxMetadataBytes', maxMetadataBytes, 1024, 2 ** 24 / READ_METADATA_FACTOR);
    assertTimeout('handshakeTimeoutMs', handshakeTimeoutMs);
    assertTimeout('slowPeerTimeoutMs', slowPeerTimeoutMs);
    assertTimeout('silentPeerTimeoutMs', silentPeerTimeoutMs);
    this.channelOptions = { 'grpc.max_concurrent_streams': maxStreamsPerConnection };
    this.#logger = logger;
    this.#maxConnections = maxConnections;
    this.#maxMetadataBytes = maxMetadataBytes;
    this.#slowPeerTimeoutMs = slowPeerTimeoutMs;
    this.#sweepMs = Math.min(handshakeTimeoutMs, slowPeerTimeoutMs, silentPeerTimeoutMs) / SWEEPS_PER_TIMEOUT;
    this.#handshakeSweeps = Math.ceil(handshakeTimeoutMs / this.#sweepMs);
    this.#slowPeerSweeps = Math.ceil(slowPeerTimeoutMs / this.#sweepMs);
    this.#silentPeerSweeps = Math.ceil(silentPeerTimeoutMs / this.#sweepMs);
  }

  /**
   * Watches a server from when it is bound. grpc-js keeps its listeners to itself, so they are looked up with care; of a
   * version that has them elsewhere, only the `channelOptions` are in force, and the logger is told.
   */
  watch(server: Server): void {
    const listeners: readonly Listener[] = findListeners(server);
    if (listeners.length === 0) {
      this.#logger.warn('the connections of this version of grpc-js cannot be watched: their limits are not in force');
    }
    for (const listener of listeners) this.#watch(listener);
    this.#admit();
  }

  /** @throws CommError `RESOURCE_EXHAUSTED` (reason `METADATA_TOO_LARGE`), naming both sizes. */
  assertMetadata(metadata: Readonly<Record<string, string>>): void {
    let bytes = 0;
    for (const key in metadata) bytes += key.length + (metadata[key] as string).length + HEADER_OVERHEAD_BYTES;
    if (bytes <= this.#maxMetadataBytes) return;
    throw new CommError(
      'RESOURCE_EXHAUSTED',
      `the call has ${bytes} bytes of metadata, more than maxMetadataBytes allows (${this.#maxMetadataBytes}); ` +
        'send less along, or raise it on the server',
      { reason: 'METADATA_TOO_LARGE' },
    );
  }

  getStatistics(): ConnectionStatistics {
    return {
      connections: this.#connections.size,
      refused: this.#refused,
      handshakeTimeouts: this.#handshakeTimeouts,
      slowPeers: this.#slowPeers,
      silentPeers: this.#silentPeers,
    };
  }

  /** Closes every connection, without a word. */
  destroyAll(): void {
    for (const socket of this.#connections.keys()) socket.destroy();
  }

  #watch(listener: Listener): void {
    this.#listeners.set(listener, 0);
    // For the sessions to come; merged with the settings that grpc-js has given it.
    listener.updateSettings({ maxHeaderListSize: this.#maxMetadataBytes * READ_METADATA_FACTOR });
    // Node says 'session' while it deals with a socket's arrival, and not whose session it is.
    let arriving: Connection | undefined;
    const secure = listener instanceof TlsServer;
    listener.prependListener('connection', (socket: Socket) => {
      arriving = this.#open(socket, listener);
    });
    if (secure) {
      listener.prependListener('secureConnection', (socket: Socket) => {
        const under = underTls(socket);
        if (!under) this.#tracesHandshakes = false;
        arriving = under && this.#connections.get(under);
      });
    }
    listener.on('session', (session: ServerHttp2Session) => {
      const connection = arriving;
      if (!connection) return;
      connection.session = session;
      // Node never frees a session that refers to its socket, when its peer has broken the protocol and gone.
      const weak = new WeakRef(connection);
      this.#bySession.set(session, weak);
      session.once('remoteSettings', () => {
        const shaken = weak.deref();
        if (shaken) shaken.hasShakenHands = true;
      });
    });
    listener.on('drop', () => this.#refused++);
    listener.on('stream', (stream, headers) => {
      // Beyond what grpc-js reads there is nothing that a peer could hold up: node closes it.
      if (stream.closed || stream.listenerCount('data') === 0) return;
      const watched = WatchedStream.of(stream, String(headers[constants.HTTP2_HEADER_PATH]));
      if (!watched) return;
      this.#streams.add(watched);
      stream.once('close', () => this.#streams.delete(watched));
    });
  }

  #open(socket: Socket, listener: Listener): Connection {
    const connection = { socket, listener, session: undefined, hasShakenHands: false, silentSweeps: 0, bytesRead: 0 };
    socket.once('close', () => this.#closed(connection));
    this.#connections.set(socket, connection);
    this.#listeners.set(listener, (this.#listeners.get(listener) ?? 0) + 1);
    this.#admit();
    if (Number.isFinite(this.#sweepMs)) {
      this.#sweeper ??= setInterval(() => this.#sweep(), Math.min(this.#sweepMs, MAX_TIMER_MS)).unref();
    }
    return connection;
  }

  #closed({ socket, listener }: Connection): void {
    this.#connections.delete(socket);
    this.#listeners.set(listener, (this.#listeners.get(listener) ?? 1) - 1);
    this.#admit();
    if (this.#connections.size > 0) return;
    clearInterval(this.#sweeper);
    this.#sweeper = undefined;
  }

  /** Lets node itself refuse connections, before anything is made for them: each listener may have its own and what is left. */
  #admit(): void {
    const left = this.#maxConnections - this.#connections.size;
    // Node 20 takes 0 for no limit.
    for (const [listener, own] of this.#listeners) listener.maxConnections = own + left || -1;
  }

  /**
   * Counts sweeps, and not the time by the clock: when the process itself was busy for long, what peers have sent
   * meanwhile has not been read yet, and they are not to blame.
   */
  #sweep(): void {
    for (const connection of this.#connections.values()) {
      if (connection.hasShakenHands) this.#sweepConnection(connection);
      else if (this.#tracesHandshakes && ++connection.silentSweeps > this.#handshakeSweeps) {
        this.#handshakeTimeouts++;
        connection.socket.destroy();
      }
    }
    for (const stream of this.#streams) this.#sweepStream(stream);
  }

  #sweepConnection(connection: Connection): void {
    const { socket, session } = connection;
    const { bytesRead } = socket;
    connection.silentSweeps = bytesRead === connection.bytesRead ? connection.silentSweeps + 1 : 0;
    connection.bytesRead = bytesRead;
    if (connection.silentSweeps === this.#silentPeerSweeps && session?.destroyed === false) session.ping(() => {});
    if (connection.silentSweeps <= 2 * this.#silentPeerSweeps) return;
    this.#silentPeers++;
    socket.destroy();
  }

  #sweepStream(watched: WatchedStream): void {
    const stuck = watched.sweep(this.#slowPeerSweeps, this.#sweepMs);
    if (stuck === 'connection') {
      // The peer takes not even the stream's end. Node's own destroy() waits for what is being written, for ever here.
      const { session } = watched.stream;
      if (session) this.#bySession.get(session)?.deref()?.socket.destroy();
    } else if (stuck) {
      this.#slowPeers++;
      const message = `the rest of the request did not come within ${this.#slowPeerTimeoutMs} ms; check the network, and that the caller still runs`;
      watched.close(new CommError('DEADLINE_EXCEEDED', message, { reason: 'SLOW_PEER' }));
    }
  }
}

/** The socket that TLS is spoken over. Node has no public name for it; where it is not found, no handshake times out. */
function underTls(socket: Socket): Socket | undefined {
  return (socket as { readonly _parent?: Socket })._parent;
}

function assertTimeout(option: string, value: number): void {
  if (typeof value === 'number' && value > 0) return;
  throw new CommError(
    'INVALID_ARGUMENT',
    `${option} must be more than 0 milliseconds, or Infinity for no limit; it is ${String(value)}`,
  );
}
