import { connect, createServer, type NetConnectOpts, type Socket } from 'node:net';
import { assertInteger, assertMs } from '../check-options.js';
import { CommError } from '../errors.js';
import { type FaultConditions, Lane, Line, SOCKET_BUFFER_BYTES } from './fault-line.js';

/** Which way bytes go. */
export type FaultDirection = 'toServer' | 'toClient';

export interface FaultRelayOptions extends FaultConditions {
  /** Where clients connect to: `host:port`, port 0 for any that is free, or `unix:/path`. Default `127.0.0.1:0`. */
  readonly listen?: string;
  /**
   * How many bytes a connection may have under way in each direction; reading stops beyond, or with a bandwidth at what
   * fits on the line. A delay needs room for what is sent meanwhile: at 500 MB/s and 100 ms, 50 MB. Default 64 MiB.
   */
  readonly bufferBytes?: number;
  /** Where faults that are drawn come from: numbers from 0 up to 1. Default `Math.random`. */
  readonly random?: () => number;
}

/** What a relay has done since it was made. */
export interface FaultStatistics {
  /** Connections that were let in. */
  readonly accepted: number;
  /** Connections that were reset on arrival, as the relay was `refusing`. */
  readonly refused: number;
  /** Connections of which at least one end is open now. */
  readonly open: number;
  /** Connections that the relay cut. */
  readonly cut: number;
  /** Bytes that the relay flipped. */
  readonly corrupted: number;
  /** Bytes that were handed on to the server. */
  readonly bytesToServer: number;
  /** Bytes that were handed on to clients. */
  readonly bytesToClient: number;
}

const SOCKET_OPTIONS = { allowHalfOpen: true, noDelay: true, highWaterMark: SOCKET_BUFFER_BYTES };

/**
 * Stands between clients and a server and is a bad network to them. Works for anything over TCP or unix sockets, as it
 * knows nothing of what it carries. Without faults it is transparent: it hands on bytes, half-closes, resets, and
 * backpressure.
 *
 * @example
 * await using relay = new FaultRelay('127.0.0.1:50051', { delayMs: 25 });
 * await using client = new GRPCComputeClient(await relay.start());
 * relay.cutAfter(1_000_000, 'toServer');
 * await client.compute(inputs); // UNAVAILABLE, unless it is retried
 */
export class FaultRelay implements AsyncDisposable {
  /** While true, new connections are reset as soon as they are made. Those that are open stay. Default false. */
  refusing = false;

  readonly #upstream: NetConnectOpts;
  readonly #listen: NetConnectOpts;
  readonly #lines: Record<FaultDirection, Line>;
  readonly #connections = new Set<Connection>();
  readonly #listener = createServer(SOCKET_OPTIONS);
  #accepted = 0;
  #refused = 0;
  #cut = 0;
  #starting: Promise<string> | undefined;
  #closing: Promise<void> | undefined;

  /**
   * @param server `host:port` or `unix:/path`. Nobody needs to listen there yet.
   * @throws CommError `INVALID_ARGUMENT` for an address or option that is none.
   */
  constructor(server: string, options: FaultRelayOptions = {}) {
    const { listen = '127.0.0.1:0', bufferBytes = 64 * 2 ** 20, random = Math.random, ...conditions } = options;
    assertInteger('bufferBytes', bufferBytes, 1);
    this.#upstream = parseAddress('server', server);
    this.#listen = parseAddress('listen', listen);
    this.#lines = { toServer: new Line(bufferBytes, random), toClient: new Line(bufferBytes, random) };
    this.set(conditions);
    this.#listener.on('connection', (client) => this.#accept(client));
  }

  /**
   * Listens.
   *
   * @returns the address for clients, as `host:port` or `unix:/path`.
   * @throws Node.js's error, such as `EADDRINUSE`, when the address cannot be listened on.
   */
  start(): Promise<string> {
    this.#starting ??= this.#start();
    return this.#starting;
  }

  /**
   * Changes the network; what is not named stays as it is. Bytes keep their order, so a shorter delay shows once those
   * that are under way have arrived.
   *
   * @throws CommError `INVALID_ARGUMENT` for a value out of range.
   */
  set(conditions: FaultConditions, direction: FaultDirection | 'both' = 'both'): void {
    checkConditions(conditions);
    for (const line of this.#linesOf(direction)) line.set(conditions);
  }

  /**
   * Resets all open connections at once, at both ends. Bytes under way are lost. A unix socket knows no reset: there the
   * other side sees an end, or that it cannot write.
   */
  cut(): void {
    for (const connection of this.#connections) if (connection.reset()) this.#cut++;
  }

  /**
   * Resets a connection, once: that which carries the `bytes`th byte in this direction, counted from now over all of
   * them. It is the last that is handed on. A new call replaces one that has not happened yet.
   */
  cutAfter(bytes: number, direction: FaultDirection): void {
    assertInteger('bytes', bytes, 1);
    this.#lines[direction].cuts.left = bytes - 1;
  }

  /**
   * Flips all bits of a byte, once, after so many unharmed ones in this direction, counted from now over all
   * connections. A new call replaces one that has not happened yet.
   */
  corruptAfter(bytes: number, direction: FaultDirection): void {
    assertInteger('bytes', bytes, 0);
    this.#lines[direction].corruptions.left = bytes;
  }

  /**
   * Loses all connections that are open, for good, without a word to either end: what they send is taken and thrown
   * away, closing included, until `cut()` or `close()`. As when a machine loses power, or a router forgets: only a
   * keepalive or a deadline notices. New connections are as good as ever.
   */
  blackHole(): void {
    for (const connection of this.#connections) connection.lose();
  }

  getStatistics(): FaultStatistics {
    const { toServer, toClient } = this.#lines;
    return {
      accepted: this.#accepted,
      refused: this.#refused,
      open: this.#connections.size,
      cut: this.#cut + toServer.cuts.count + toClient.cuts.count,
      corrupted: toServer.corruptions.count + toClient.corruptions.count,
      bytesToServer: toServer.bytes,
      bytesToClient: toClient.bytes,
    };
  }

  /** Resets all connections and listens no more. Resolves when every socket is closed; never rejects. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #start(): Promise<string> {
    if (this.#closing) throw new CommError('FAILED_PRECONDITION', 'this relay has been closed; make a new one');
    await new Promise<void>((resolve, reject) => {
      this.#listener.once('error', reject).listen(this.#listen, () => {
        // From here on an error is that of one connection, such as too many open files.
        this.#listener.off('error', reject).on('error', () => {});
        resolve();
      });
    });
    const address = this.#listener.address();
    if (address === null || typeof address === 'string') return `unix:${address}`;
    return address.family === 'IPv6' ? `[${address.address}]:${address.port}` : `${address.address}:${address.port}`;
  }

  async #close(): Promise<void> {
    await this.#starting?.catch(() => {});
    const closed = new Promise((resolve) => this.#listener.close(resolve));
    const connections = [...this.#connections];
    for (const connection of connections) connection.reset();
    await Promise.all([closed, ...connections.map((connection) => connection.closed)]);
  }

  #accept(client: Socket): void {
    if (this.refusing) {
      this.#refused++;
      client.on('error', () => {});
      resetSocket(client);
      return;
    }
    this.#accepted++;
    const server = connect({ ...this.#upstream, ...SOCKET_OPTIONS });
    const connection = new Connection(client, server, this.#lines);
    this.#connections.add(connection);
    connection.closed.then(() => this.#connections.delete(connection));
  }

  #linesOf(direction: FaultDirection | 'both'): Line[] {
    return direction === 'both' ? Object.values(this.#lines) : [this.#lines[direction]];
  }
}

/** A client's connection, the one to the server that goes with it, and the lanes between the two. */
class Connection {
  /** Resolves when both are closed. */
  readonly closed: Promise<unknown>;
  readonly #sockets: readonly Socket[];
  readonly #lanes: readonly Lane[];

  constructor(client: Socket, server: Socket, lines: Record<FaultDirection, Line>) {
    this.#sockets = [client, server];
    this.closed = Promise.all(this.#sockets.map((socket) => new Promise((resolve) => socket.once('close', resolve))));
    const reset = () => this.reset();
    this.#lanes = [new Lane(lines.toServer, client, server, reset), new Lane(lines.toClient, server, client, reset)];
  }

  /** Whether there was anything left to reset. */
  reset(): boolean {
    const open = this.#sockets.filter((socket) => !socket.destroyed);
    open.forEach(resetSocket);
    return open.length > 0;
  }

  lose(): void {
    for (const lane of this.#lanes) lane.lose();
  }
}

/** Closes a connection so that its peer gets an error (`ECONNRESET`) and not an end; on unix sockets, which cannot, an end. */
function resetSocket(socket: Socket): void {
  // Node.js leaves a socket open that it is told to reset while it waits for the kernel to send the end.
  const ending = socket.writableEnded && !socket.writableFinished && socket.writableLength === 0;
  const isTcp = socket.remoteFamily !== undefined;
  if (isTcp && !ending && !socket.destroyed) socket.resetAndDestroy();
  else socket.destroy();
}

function parseAddress(option: string, address: string): NetConnectOpts {
  const path = /^unix:(.+)$/.exec(address)?.[1];
  if (path !== undefined) return { path };
  const [, ipv6, name, port] = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(address) ?? [];
  const host = ipv6 ?? name;
  if (host !== undefined && Number(port) <= 65_535) return { host, port: Number(port) };
  throw new CommError('INVALID_ARGUMENT', `${option} must be host:port or unix:/path; it is '${address}'`);
}

function checkConditions({ delayMs, bytesPerSecond, cutEveryBytes, corruptEveryBytes }: FaultConditions): void {
  if (delayMs !== undefined) assertMs('delayMs', delayMs);
  for (const [option, value] of Object.entries({ bytesPerSecond, cutEveryBytes, corruptEveryBytes })) {
    if (value === undefined || (typeof value === 'number' && value >= 1)) continue;
    throw new CommError('INVALID_ARGUMENT', `${option} must be 1 or more; it is ${String(value)}`);
  }
}
