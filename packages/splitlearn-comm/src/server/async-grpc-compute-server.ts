import { fileURLToPath } from 'node:url';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import type { ComputeFunction } from '../compute-function.js';
import { CommError } from '../errors.js';
import { DEFAULT_MAX_MESSAGE_BYTES, messageLimits } from '../grpc/channel.js';
import { SERVICE_NAME } from '../grpc/service.js';
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
  readonly #servicer: AsyncComputeServicer;
  readonly #health = new HealthImplementation({ '': 'NOT_SERVING', [SERVICE_NAME]: 'NOT_SERVING' });
  readonly #server: Server;
  #starting: Promise<number> | undefined;
  #stopping: Promise<void> | undefined;
  #terminated!: () => void;
  readonly #termination = new Promise<void>((resolve) => (this.#terminated = resolve));

  constructor(options: AsyncGRPCComputeServerOptions) {
    const { computeFn, host = '127.0.0.1', port = 50051, address, logger = console } = options;
    const { maxMessageLength = DEFAULT_MAX_MESSAGE_BYTES } = options;
    if (!Number.isInteger(port) || port < 0 || port > 65535) {
      throw new CommError('INVALID_ARGUMENT', `port must be an integer from 0 to 65535; it is ${port}`);
    }
    this.#computeFn = computeFn;
    this.#address = address ?? (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`);
    this.#servicer = new AsyncComputeServicer({ computeFn, logger, maxMessageLength });
    this.#server = new Server(messageLimits(maxMessageLength));
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

  /** Refuses new calls, lets those under way finish for `graceMs`, aborts the rest, and tears the compute function down. */
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
      await this.#computeFn.teardown?.();
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
        if (error) reject(bindError(this.#address, error));
        else resolve(this.#address.startsWith('unix:') ? 0 : port);
      });
    });
  }

  #drain(graceMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#servicer.abortAll(new CommError('UNAVAILABLE', 'the server is stopping', { reason: 'STOPPING' }));
        // The aborted calls get to send that status before their connections go.
        setImmediate(() => this.#server.forceShutdown());
      }, graceMs);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #setHealth(health: 'SERVING' | 'NOT_SERVING'): void {
    for (const service of ['', SERVICE_NAME]) this.#health.setStatus(service, health);
  }
}

function reflection(): ReflectionService {
  return new ReflectionService(loadSync('splitlearn/comm/v1/compute.proto', { includeDirs: [PROTO_FOLDER] }));
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
