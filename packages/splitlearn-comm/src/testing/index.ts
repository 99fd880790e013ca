import type { GRPCComputeClientOptions } from '../client/client-options.js';
import { GRPCComputeClient } from '../client/grpc-compute-client.js';
import type { ComputeFunction } from '../compute-function.js';
import { AsyncGRPCComputeServer, type AsyncGRPCComputeServerOptions } from '../server/async-grpc-compute-server.js';

export type { FaultConditions } from './fault-line.js';
export { type FaultDirection, FaultRelay, type FaultRelayOptions, type FaultStatistics } from './fault-relay.js';

export interface LoopbackOptions {
  readonly server?: Omit<AsyncGRPCComputeServerOptions, 'computeFn' | 'host' | 'port' | 'address'>;
  readonly client?: GRPCComputeClientOptions;
}

/** A server and a client that is connected to it, over a real socket of this machine. */
export interface Loopback extends AsyncDisposable {
  readonly server: AsyncGRPCComputeServer;
  readonly client: GRPCComputeClient;
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Serves a compute function on a free port of 127.0.0.1 and connects a client to it, for tests.
 *
 * @example
 * await using pair = await loopback(new AsyncLambdaComputeFunction((inputs) => inputs));
 * await pair.client.compute(tensor([1, 2, 3]));
 */
export async function loopback(computeFn: ComputeFunction, options: LoopbackOptions = {}): Promise<Loopback> {
  const server = new AsyncGRPCComputeServer({ ...options.server, computeFn, port: 0 });
  const port = await server.start();
  const client = new GRPCComputeClient(`127.0.0.1:${port}`, options.client);
  const close = async () => {
    await client.close();
    await server.stop({ graceMs: 0 });
  };
  return { server, client, port, close, [Symbol.asyncDispose]: close };
}
