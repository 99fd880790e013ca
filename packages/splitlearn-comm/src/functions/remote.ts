import type { CallOptions } from '../client/call-options.js';
import { GRPCComputeClient } from '../client/grpc-compute-client.js';
import type {
  CallContext,
  ComputeFunction,
  ComputeRequest,
  ComputeResponse,
  ServiceInfo,
} from '../compute-function.js';

/**
 * A compute function that runs on another server: the caller's deadline, cancellation, request id and metadata go along.
 *
 * Given an address it makes a client of its own and closes it on `teardown`; given a client it leaves it open.
 */
export class RemoteComputeFunction implements ComputeFunction {
  readonly #client: GRPCComputeClient;
  readonly #ownsClient: boolean;

  constructor(server: string | GRPCComputeClient) {
    this.#ownsClient = typeof server === 'string';
    this.#client = typeof server === 'string' ? new GRPCComputeClient(server) : server;
  }

  /** @throws CommError `UNAVAILABLE` when no server answers at the address. */
  async setup(): Promise<void> {
    await this.#client.connect();
  }

  async compute(request: ComputeRequest, context: CallContext): Promise<ComputeResponse> {
    return this.#client.call(request, toCallOptions(context));
  }

  stream(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse> {
    return this.#client.stream(requests, toCallOptions(context));
  }

  info(): Promise<ServiceInfo> {
    return this.#client.getServiceInfo();
  }

  async teardown(): Promise<void> {
    if (this.#ownsClient) await this.#client.close();
  }
}

function toCallOptions({ signal, deadlineMs, requestId, metadata }: CallContext): CallOptions {
  // Without a deadline the call may take as long as its caller waits, not as long as the client's own default.
  const timeoutMs = deadlineMs === undefined ? Number.POSITIVE_INFINITY : Math.max(0, deadlineMs - Date.now());
  // The caller's credentials are for this server, not for the next.
  const { authorization: _, ...passedOn } = metadata;
  return { signal, requestId, metadata: passedOn, timeoutMs };
}
