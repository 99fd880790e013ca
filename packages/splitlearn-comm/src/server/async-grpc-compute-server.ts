import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import { assertInteger, MAX_TIMER_MS } from '../check-options.js';
import type { ComputeFunction } from '../compute-function.js';
import { CommError } from '../errors.js';
import { DEFAULT_MAX_MESSAGE_BYTES, messageLimits, STREAM_WINDOW_BYTES } from '../grpc/channel.js';
import { findListeners, setConnectionWindow, setStreamWindow } from '../grpc/internals.js';
import { SERVICE_NAME } from '../grpc/service.js';
import { trackSockets } from '../grpc/sockets.js';
import type { Logger } from '../logger.js';
import type { CallStatistics } from '../statistics.js';
import { AsyncComputeServicer } from './async-compute-servicer.js';

export interface AsyncGRPCComputeServerOptions {
  /** What answers the calls. The server sets it up in `start` and tears it down in `stop`. */
  readonly computeFn: ComputeFunction;
  /** The address to listen on. Default `127.0.0.1`: this machine only. `0.0.0.0` or `::` for every network. */
  readonly host?: string;
  /** The port to listen on; 0 for any that is free. Default 50051. */
  readonly port?: number;
  /** A unix socket to listen on instead of host and port, as `unix:/absolute/path`. */
  readonly address?: string;
  /** The largest request or response, in bytes. Default 64 MiB. A larger one fails with `RESOURCE_EXHAUSTED`. */
  readonly maxMessageLength?: number;
  /** Told of unexpected errors. Default: `console`. */
  readonly logger?: Logger;
}

export interface StopOptions {
  /** Milliseconds that calls which are under way may still take. Default 5000; 0 ends them at once. */
  readonly graceMs?: number;
}

/** How long calls that are told to stop may take to do so. */
const HEED_MS = 1_000;
/** How long peers may take to close their connections. */
const CLOSE_MS = 500;

const PROTO_FOLDER = fileURLToPath(new URL('../../proto', import.meta.url));

/**
 * Serves a compute function over gRPC, with `grpc.health.v1.Health` and server reflection beside it.
 *
 * @example
 * await using server = new AsyncGRPCComputeServer({ computeFn, port: 0 });
 * const port = await server.start();
 */
export class AsyncGRPCComputeServer {
  readonly #computeFn: ComputeFunction;
  readonly #address: string;
  readonly #logger: Logger;
  readonly #servicer: AsyncComputeServicer;
  readonly #health = new HealthImplementation({ '': 'NOT_SERVING', [SERVICE_NAME]: 'NOT_SERVING' });
  readonly #server: Server;
  #sockets: ReadonlySet<Socket> = new Set();
  #starting: Promise<number> | undefined;
  #stopping: Promise<void> | undefined;
  #terminated!: () => void;
  readonly #termination = new Promise<void>((resolve) => (this.#terminated = resolve));

  constructor(options: AsyncGRPCComputeServerOptions) {
    const { computeFn, host = '127.0.0.1', port = 50051, address, logger = console } = options;
    const { maxMessageLength = DEFAULT_MAX_MESSAGE_BYTES } = options;
    assertInteger('port', port, 0, 65535);
    this.#computeFn = computeFn;
    this.#logger = logger;
    this.#address = address === undefined ? hostAndPort(host, port) : unixAddress(address);
    this.#servicer = new AsyncComputeServicer({ computeFn, logger, maxMessageLength });
    this.#server = new Server(messageLimits(maxMessageLength));
    setStreamWindow(this.#server, STREAM_WINDOW_BYTES);
  }

  /**
   * Sets the compute function up, then listens. Health says SERVING from here on.
   *
   * @returns the bound port; 0 for a unix socket.
   * @throws CommError `FAILED_PRECONDITION` (reason `ADDRESS_IN_USE` or `ADDRESS_NOT_AVAILABLE`) when the address
   * cannot be listened on; whatever the compute function's `setup` throws.
   */
  start(): Promise<number> {
    this.#starting ??= this.#start();
    return this.#starting;
  }

  /**
   * Refuses new calls, lets those under way finish for `graceMs`, aborts the rest, and tears the compute function down.
   * While the server is being started, waits for that first.
   *
   * @throws whatever the compute function's `teardown` throws; the server has stopped even so.
   */
  stop(options: StopOptions = {}): Promise<void> {
    this.#stopping ??= this.#stop(options);
    return this.#stopping;
  }

  /** Resolves when the server has stopped. */
  waitForTermination(): Promise<void> {
    return this.#termination;
  }

  getStatistics(): CallStatistics {
    return this.#servicer.getStatistics();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #start(): Promise<number> {
    if (this.#stopping) throw new CommError('FAILED_PRECONDITION', 'this server has been stopped; make a new one');
    await this.#computeFn.setup?.();
    try {
      this.#server.addService(this.#servicer.definition, this.#servicer.implementation);
      this.#health.addToServer(this.#server);
      reflection().addToServer(this.#server);
      const port = await this.#bind();
      this.#setHealth('SERVING');
      return port;
    } catch (error) {
      try {
        await this.#computeFn.teardown?.();
      } catch (failure) {
        // What failed first is what matters.
        this.#logger.error(`teardown after a failed start failed: ${String(failure)}`);
      }
      throw error;
    }
  }

  async #stop({ graceMs = 5_000 }: StopOptions): Promise<void> {
    const started = await this.#starting?.then(
      () => true,
      () => false,
    );
    try {
      if (!started) return;
      this.#setHealth('NOT_SERVING');
      await this.#drain(graceMs);
      await this.#computeFn.teardown?.();
    } finally {
      this.#terminated();
    }
  }

  #bind(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(this.#address, ServerCredentials.createInsecure(), (error, port) => {
        if (error) return reject(bindError(this.#address, error));
        this.#sockets = trackSockets(this.#server);
        for (const listener of findListeners(this.#server)) {
          listener.on('session', (session) => setConnectionWindow(session, STREAM_WINDOW_BYTES));
        }
        resolve(this.#address.startsWith('unix:') ? 0 : port);
      });
    });
  }

  async #drain(graceMs: number): Promise<void> {
    this.#servicer.drain();
    const closed = new Promise<void>((resolve) => this.#server.tryShutdown(() => resolve()));
    const idle = this.#servicer.idle();
    if (!(await within(graceMs, idle))) {
      this.#servicer.abortAll(new CommError('UNAVAILABLE', 'the server is stopping', { reason: 'STOPPING' }));
      if (!(await within(HEED_MS, idle)))
        this.#logger.warn('calls that were told to stop go on; the server stops without them');
    }
    // No calls are left, but there may be health watchers, and connections whose peer is gone or never said a word.
    if (await within(CLOSE_MS, closed)) return;
    this.#server.forceShutdown();
    for (const socket of this.#sockets) socket.destroy();
    await within(CLOSE_MS, closed);
  }

  #setHealth(health: 'SERVING' | 'NOT_SERVING'): void {
    for (const service of ['', SERVICE_NAME]) this.#health.setStatus(service, health);
  }
}

function hostAndPort(host: string, port: number): string {
  if (typeof host !== 'string' || host === '') {
    throw new CommError('INVALID_ARGUMENT', `host must be a name or an address, such as 127.0.0.1; it is '${host}'`);
  }
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

/** Beyond this the operating system would take a part of the path for the whole. */
const MAX_SOCKET_PATH_BYTES = process.platform === 'linux' ? 107 : 103;

function unixAddress(address: string): string {
  const path = /^unix:(.+)$/.exec(address)?.[1];
  if (path === undefined) {
    throw new CommError(
      'INVALID_ARGUMENT',
      `address must be unix:/absolute/path; it is '${address}' (for TCP give host and port)`,
    );
  }
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_PATH_BYTES) {
    throw new CommError(
      'INVALID_ARGUMENT',
      `the path of ${address} has ${bytes} bytes, but that of a unix socket at most ${MAX_SOCKET_PATH_BYTES}; choose a shorter one`,
    );
  }
  return address;
}

/** Whether something happens within a time. */
async function within(timeMs: number, happening: Promise<void>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, Math.min(timeMs, MAX_TIMER_MS), false);
  });
  const inTime = await Promise.race([happening.then(() => true), late]);
  clearTimeout(timer);
  return inTime;
}

function reflection(): ReflectionService {
  return new ReflectionService(
    loadSync('splitlearn/comm/v1/compute.proto', { includeDirs: [PROTO_FOLDER], keepCase: true }),
  );
}

function bindError(address: string, cause: Error): CommError {
  const inUse = /EADDRINUSE/.test(cause.message);
  const unix = address.startsWith('unix:');
  const message = inUse
    ? `${address} is in use: ${unix ? 'another server listens there, or one that was killed left the file behind; remove it if no server runs' : 'another program listens there; stop it, or choose another port (port: 0 takes any free one)'}`
    : `cannot listen on ${address}: ${cause.message}; check that the ${unix ? 'folder exists and may be written to' : 'host is an address of this machine'}`;
  return new CommError('FAILED_PRECONDITION', message, {
    reason: inUse ? 'ADDRESS_IN_USE' : 'ADDRESS_NOT_AVAILABLE',
    cause,
  });
}
