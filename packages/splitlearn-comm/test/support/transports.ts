import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AsyncGRPCComputeServer,
  type AsyncGRPCComputeServerOptions,
  type ComputeFunction,
  GRPCComputeClient,
  type GRPCComputeClientOptions,
} from '@splitlearn/comm';
import { FaultRelay, type Loopback, type LoopbackOptions } from '@splitlearn/comm/testing';
import { vi } from 'vitest';
import { findHttp2Stream } from '../../dist/grpc/internals.js';

// The ways that calls travel. A behaviour of calls is one test that runs over all of them.
//
// A test file that uses them has to say `vi.mock('../dist/grpc/internals.js', { spy: true })`: that is how an Exchange is
// made to go through grpc-js's messages, as it does where the HTTP/2 stream is not found.

vi.setConfig({ testTimeout: 30_000 });

export interface Pair extends Loopback {
  /** What the client reaches the server through; without faults, until it is told of some. */
  readonly relay: FaultRelay;
}

export interface Transport {
  readonly name: string;
  /** Calls share a stream: that is where calls are told why a connection is lost, and how far a session may be ahead. */
  readonly exchange: boolean;
  /** Serves a compute function and connects a client to it. `port` is 0 where there is none. */
  loopback(computeFn: ComputeFunction, options?: LoopbackOptions): Promise<Loopback>;
  /** The same with a network in between that may be a bad one. */
  relayed(computeFn: ComputeFunction, options?: LoopbackOptions): Promise<Pair>;
}

interface Variation {
  readonly exchange?: boolean;
  readonly messages?: boolean;
  readonly unix?: boolean;
  readonly server?: Partial<AsyncGRPCComputeServerOptions>;
  readonly client?: GRPCComputeClientOptions;
}

export const transports: readonly Transport[] = [
  transport('Exchange', {}),
  transport('Exchange on a unix socket', { unix: true }),
  transport('Exchange in messages of grpc-js', { messages: true }),
  transport('a gRPC call each', { exchange: false }),
  transport('Exchange with TLS', {
    server: { tls: { cert: pem('server.pem'), key: pem('server.key') } },
    client: { tls: { ca: pem('ca.pem'), serverName: 'localhost' } },
  }),
];

function pem(name: string): Buffer {
  return readFileSync(new URL(`../fixtures/tls/${name}`, import.meta.url));
}

function transport(name: string, { exchange = true, messages = false, unix = false, ...more }: Variation): Transport {
  const start = async (computeFn: ComputeFunction, options: LoopbackOptions) => {
    const hidden = vi.mocked(findHttp2Stream);
    if (messages) hidden.mockReturnValue(undefined);
    else hidden.mockReset();
    const path = `unix:${join(tmpdir(), `splitlearn-${randomUUID()}.sock`)}`;
    const where = unix ? { address: path } : { port: 0 };
    const server = new AsyncGRPCComputeServer({ ...more.server, ...options.server, ...where, computeFn });
    const port = await server.start();
    return { server, port, address: unix ? path : `127.0.0.1:${port}` };
  };
  const connect = (address: string, options: LoopbackOptions) =>
    new GRPCComputeClient(address, { exchange, ...more.client, ...options.client });
  return {
    name,
    exchange,
    async loopback(computeFn, options = {}) {
      const { server, port, address } = await start(computeFn, options);
      const client = connect(address, options);
      const close = async () => {
        await client.close();
        await server.stop({ graceMs: 0 });
      };
      return { server, client, port, close, [Symbol.asyncDispose]: close };
    },
    async relayed(computeFn, options = {}) {
      const { server, port, address } = await start(computeFn, options);
      const relay = new FaultRelay(address);
      const client = connect(await relay.start(), options);
      const close = async () => {
        await client.close();
        await relay.close();
        await server.stop({ graceMs: 0 });
      };
      return { server, client, port, relay, close, [Symbol.asyncDispose]: close };
    },
  };
}
