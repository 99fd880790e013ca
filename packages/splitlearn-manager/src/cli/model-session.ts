import {
  type ComputeOptions,
  type ComputeRequest,
  type ComputeResponse,
  callContext,
  GRPCComputeClient,
  type ModelInfo,
  streamByCompute,
  type Tensors,
} from '@splitlearn/comm';
import { AsyncModelManager } from '../models/async-model-manager.js';
import type { ModelConfig } from '../models/model-config.js';
import { AsyncManagedServer } from '../server/async-managed-server.js';
import type { Cli } from './cli.js';
import type { LoadingOptions } from './cli-parts.js';
import { EXIT } from './exit-codes.js';
import { CliError } from './failures.js';

/** A model that answers, be it in this program or on a server. */
export interface ModelSession {
  readonly info: ModelInfo;
  /** Answers one request as a whole; the signal ends it. */
  compute(request: Omit<ComputeRequest, 'model'>, signal: AbortSignal): Promise<Tensors>;
  /** Answers one request in pieces; the signal ends it. */
  stream(request: Omit<ComputeRequest, 'model'>, signal: AbortSignal): AsyncIterable<ComputeResponse>;
  close(): Promise<void>;
}

/** How long a server may take to be reached, in milliseconds. */
const CONNECT_TIMEOUT_MS = 5_000;

/** Loads a model in this program. */
export async function openHere(config: ModelConfig, cli: Cli, options: LoadingOptions): Promise<ModelSession> {
  const { locate } = cli.environment.parts;
  const manager = new AsyncModelManager(
    { logger: cli.logger },
    { locateModel: (resolved) => locate(resolved, cli, options) },
  );
  const close = () => manager.shutdown({ graceMs: 0 });
  const giveUp = () => void close();
  options.signal.addEventListener('abort', giveUp, { once: true });
  try {
    const info = await manager.loadModel(config);
    return {
      info,
      async compute(request, signal) {
        const lease = await manager.acquire(info.modelId, { signal });
        try {
          const named = { ...request, model: info.modelId };
          return (await lease.model.compute(named, callContext({ signal }))).outputs;
        } finally {
          lease.release();
        }
      },
      async *stream(request, signal) {
        const lease = await manager.acquire(info.modelId, { signal });
        try {
          const context = callContext({ signal });
          const requests = one({ ...request, model: info.modelId });
          yield* lease.model.stream?.(requests, context) ?? streamByCompute(lease.model, requests, context);
        } finally {
          lease.release();
        }
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  } finally {
    options.signal.removeEventListener('abort', giveUp);
  }
}

/** Serves a model on a port of this machine and reaches it there. */
export async function openServedHere(config: ModelConfig, cli: Cli, options: LoadingOptions): Promise<ModelSession> {
  const server = new AsyncManagedServer({ config: { port: 0 }, models: [config], logger: cli.logger });
  server.modelManager.on('download', options.onDownload);
  const giveUp = () => void server.stop({ graceMs: 0 });
  options.signal.addEventListener('abort', giveUp, { once: true });
  try {
    const session = await openAt(`127.0.0.1:${await server.start()}`, undefined, options);
    return {
      ...session,
      async close() {
        await session.close();
        await server.stop({ graceMs: 0 });
      },
    };
  } catch (error) {
    await server.stop({ graceMs: 0 });
    throw error;
  } finally {
    options.signal.removeEventListener('abort', giveUp);
  }
}

/** Reaches a model on a server. */
export async function openAt(
  address: string,
  model: string | undefined,
  { signal }: Pick<LoadingOptions, 'signal'>,
): Promise<ModelSession> {
  const client = new GRPCComputeClient(address, { connectTimeoutMs: CONNECT_TIMEOUT_MS });
  try {
    const { models } = await client.getServiceInfo({ signal, timeoutMs: CONNECT_TIMEOUT_MS });
    const info = chooseModel(models, model, address);
    return {
      info,
      compute: ({ inputs, ...request }, signal) => client.compute(inputs, callOptions(info, request, signal)),
      async *stream({ inputs, ...request }, signal) {
        const call = callOptions(info, request, signal);
        yield* client.stream([{ inputs }], call);
      },
      close: () => client.close(),
    };
  } catch (error) {
    await client.close();
    throw signal.aborted ? signal.reason : error;
  }
}

/** A name that is not listed may be a route, which the server knows about. */
function chooseModel(models: readonly ModelInfo[], model: string | undefined, address: string): ModelInfo {
  if (model !== undefined) return models.find(({ name }) => name === model) ?? { name: model, state: 'UNKNOWN' };
  const [only, ...others] = models;
  if (only && others.length === 0) return only;
  const names = models.map(({ name }) => `'${name}'`).join(', ') || 'none';
  throw new CliError(
    EXIT.USAGE,
    'MODEL_AMBIGUOUS',
    `the server at ${address} has not exactly one model, so say which one is meant; it has: ${names}`,
  );
}

function callOptions(
  { name }: ModelInfo,
  { parameters, outputs }: Omit<ComputeRequest, 'inputs'>,
  signal: AbortSignal,
): ComputeOptions {
  return { model: name, signal, ...(parameters && { parameters }), ...(outputs && { outputs }) };
}

async function* one<T>(value: T): AsyncGenerator<T> {
  yield value;
}
