import {
  type CallContext,
  CommError,
  type ComputeFunction,
  type ComputeRequest,
  GRPCComputeClient,
  type GRPCComputeClientOptions,
  RemoteComputeFunction,
} from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { ModelHost } from './model-host.js';

/** Where a model is that another server has. */
export interface RemoteHostOptions {
  /** The model's name here. */
  readonly modelId: string;
  /** The server's address, such as `gpu-box:50051`, as `GRPCComputeClient` takes it. */
  readonly address: string;
  /** The model's name there. */
  readonly source: string;
  /** The largest request or response, in bytes. */
  readonly maxMessageLength: number;
  /** Milliseconds until a server that does not answer is given up. Default 5000. */
  readonly connectTimeoutMs?: number;
  /** For a server that asks for TLS or a token. Default: neither. */
  readonly client?: Pick<GRPCComputeClientOptions, 'tls' | 'token'>;
}

/** Names beyond this many are counted in a message, not listed. */
const MOST_LISTED = 20;

/**
 * Uses a model that another server has. Its errors reach the caller as they are there; a server that goes away fails
 * its calls with `UNAVAILABLE`, and is connected to again by the next call. The caller's credentials stay here.
 *
 * @param signal - Gives up the start.
 * @throws ManagerError `INVALID_CONFIG` for what is no address, `SOURCE_UNAVAILABLE` when no server answers there in
 * time, `SOURCE_NOT_FOUND` when it has no such model; else the server's own error; the signal's reason when it was given
 * up.
 */
export async function startRemoteHost(options: RemoteHostOptions, signal: AbortSignal): Promise<ModelHost> {
  signal.throwIfAborted();
  const { modelId, address, source, connectTimeoutMs = 5_000 } = options;
  const client = connectTo(options);
  try {
    await orAborted(client.connect({ timeoutMs: connectTimeoutMs }), signal);
    const { models } = await client.getServiceInfo({ timeoutMs: connectTimeoutMs, signal });
    const { name: _, state: __, ...info } = models.find(({ name }) => name === source) ?? notThere(options, models);
    const attributes = { ...info.attributes, address, remoteName: source };
    return {
      computeFn: renamed(new RemoteComputeFunction(client), source),
      info: { ...info, attributes },
      died: new Promise(() => {}),
      memoryBytes: async () => 0,
      stop: () => client.close(),
    };
  } catch (error) {
    await client.close();
    if (signal.aborted) throw signal.reason;
    if (!(error instanceof CommError) || error.code !== 'UNAVAILABLE') throw ManagerError.fromCommError(error);
    throw new ManagerError(
      'SOURCE_UNAVAILABLE',
      `model '${modelId}' is at ${address}, where no server answers within ${connectTimeoutMs} ms: ${error.message}; see ` +
        `that it runs there and can be reached`,
      { cause: error },
    );
  }
}

function connectTo({ modelId, address, maxMessageLength, client }: RemoteHostOptions): GRPCComputeClient {
  try {
    return new GRPCComputeClient(address, { ...client, maxMessageLength });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ManagerError('INVALID_CONFIG', `the address of model '${modelId}' is wrong: ${reason}`, { cause: error });
  }
}

/** A model is called by another name there, and its answers carry this one's. */
function renamed(remote: RemoteComputeFunction, model: string): ComputeFunction {
  const rename = (request: ComputeRequest): ComputeRequest => ({ ...request, model });
  return {
    compute: async (request, context) => {
      const { model: _, ...response } = await remote.compute(rename(request), context);
      return response;
    },
    stream: async function* (requests: AsyncIterable<ComputeRequest>, context: CallContext) {
      const all = async function* () {
        for await (const request of requests) yield rename(request);
      };
      for await (const { model: _, ...response } of remote.stream(all(), context)) yield response;
    },
  };
}

function notThere({ modelId, address, source }: RemoteHostOptions, models: readonly { name: string }[]): never {
  const names = models.slice(0, MOST_LISTED).map(({ name }) => `'${name}'`);
  const more = models.length - names.length;
  throw new ManagerError(
    'SOURCE_NOT_FOUND',
    `model '${modelId}' is to be '${source}' at ${address}, but there is no such model there; there are ` +
      `${names.join(', ') || 'none'}${more > 0 ? ` and ${more} more` : ''}`,
  );
}

async function orAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  let abort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort);
  });
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
