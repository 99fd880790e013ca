import { once } from 'node:events';
import { type CallOptions as GrpcCallOptions, type Client, Metadata, type MethodDefinition } from '@grpc/grpc-js';
import { CommError } from '../errors.js';
import { fromStatus, isServiceError } from '../grpc/status.js';

// The two shapes of call that grpc-js has, as a promise and as an async generator that speak CommError.

export interface WireCallOptions {
  /** In milliseconds since the epoch; `Infinity` for none. */
  readonly deadlineMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/** One message there, one message back. */
export async function unaryCall<Request, Response>(
  client: Client,
  address: string,
  method: MethodDefinition<Request, Response>,
  request: Request,
  options: WireCallOptions,
): Promise<Response> {
  const { signal } = options;
  if (signal?.aborted) throw cancelled(signal);
  const { path, requestSerialize, responseDeserialize } = method;
  return new Promise((resolve, reject) => {
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      toMetadata(options),
      toGrpcOptions(options),
      (error, response) => {
        signal?.removeEventListener('abort', cancel);
        if (error) reject(toCommError(error, address, signal));
        else resolve(response as Response);
      },
    );
    const cancel = () => call.cancel();
    signal?.addEventListener('abort', cancel);
  });
}

/** Messages there as they come, messages back as they come, with backpressure both ways. */
export async function* streamCall(
  client: Client,
  address: string,
  method: MethodDefinition<Uint8Array, Uint8Array>,
  requests: AsyncIterable<Uint8Array>,
  options: WireCallOptions,
): AsyncGenerator<Uint8Array, void> {
  const { signal } = options;
  if (signal?.aborted) throw cancelled(signal);
  const { path, requestSerialize, responseDeserialize } = method;
  const metadata = toMetadata(options);
  const call = client.makeBidiStreamRequest(path, requestSerialize, responseDeserialize, metadata, toGrpcOptions(options));
  // An error after the last read has no reader any more, and must not become an uncaught exception.
  call.on('error', () => {});
  const ended = new AbortController();
  const cancel = () => call.cancel();
  signal?.addEventListener('abort', cancel);
  const source: { error?: unknown } = {};
  void (async () => {
    for await (const request of requests) {
      if (ended.signal.aborted) return;
      if (!call.write(request)) await once(call, 'drain', { signal: ended.signal });
    }
    call.end();
  })().catch((error: unknown) => {
    if (ended.signal.aborted) return;
    // The caller's own source of requests failed: the call ends, and the caller gets its own error back.
    source.error = error;
    call.cancel();
  });
  try {
    yield* call as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw source.error ?? toCommError(error, address, signal);
  } finally {
    signal?.removeEventListener('abort', cancel);
    ended.abort();
    call.cancel();
  }
}

function toGrpcOptions({ deadlineMs }: WireCallOptions): GrpcCallOptions {
  return Number.isFinite(deadlineMs) ? { deadline: deadlineMs } : {};
}

function toMetadata({ metadata = {} }: WireCallOptions): Metadata {
  const result = new Metadata();
  for (const [name, value] of Object.entries(metadata)) {
    try {
      result.set(name, value);
    } catch (cause) {
      throw new CommError('INVALID_ARGUMENT', `metadata '${name}' cannot be sent: ${(cause as Error).message}`, { cause });
    }
  }
  return result;
}

function toCommError(error: unknown, address: string, signal: AbortSignal | undefined): CommError {
  if (signal?.aborted) return cancelled(signal);
  return isServiceError(error) ? fromStatus(error, address) : CommError.from(error);
}

/** A signal that carries a CommError (a server's deadline passed on, for instance) says itself what happened. */
function cancelled({ reason }: AbortSignal): CommError {
  return reason instanceof CommError ? reason : new CommError('CANCELLED', 'the call was cancelled by its caller', { cause: reason });
}
