import { once } from 'node:events';
import type { Client, ClientDuplexStream, CallOptions as GrpcCallOptions, MethodDefinition } from '@grpc/grpc-js';
import { MAX_TIMER_MS } from '../check-options.js';
import { CommError } from '../errors.js';
import { toMetadata } from '../grpc/metadata.js';
import { fromStatus, isServiceError } from '../grpc/status.js';
import { abortError, onAbort } from '../signals.js';

// The two shapes of call that grpc-js has, as a promise and as an async generator that speak CommError.

/** What a client has to know of a method. */
export type ClientMethod<Request, Response> = Pick<
  MethodDefinition<Request, Response>,
  'path' | 'requestSerialize' | 'responseDeserialize'
>;

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
  method: ClientMethod<Request, Response>,
  request: Request,
  options: WireCallOptions,
): Promise<Response> {
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal);
  const { path, requestSerialize, responseDeserialize } = method;
  const metadata = toMetadata(options.metadata ?? {});
  return new Promise((resolve, reject) => {
    const call = client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      toGrpcOptions(options),
      (error, response) => {
        ignore?.();
        if (error) reject(toCommError(error, address, signal));
        else resolve(response as Response);
      },
    );
    const ignore = signal && onAbort(signal, () => call.cancel());
  });
}

/** Messages there as they come, messages back as they come, with backpressure both ways. */
export async function* streamCall(
  client: Client,
  address: string,
  method: ClientMethod<Uint8Array, Uint8Array>,
  requests: AsyncIterable<Uint8Array>,
  options: WireCallOptions,
): AsyncGenerator<Uint8Array, void> {
  const { signal } = options;
  if (signal?.aborted) throw abortError(signal);
  const { path, requestSerialize, responseDeserialize } = method;
  const metadata = toMetadata(options.metadata ?? {});
  const call = client.makeBidiStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    metadata,
    toGrpcOptions(options),
  );
  // An error after the last read has no reader any more, and must not become an uncaught exception.
  call.on('error', () => {});
  const ended = new AbortController();
  const ignore = signal && onAbort(signal, () => call.cancel());
  let source: { error: unknown } | undefined;
  sendAll(call, requests, ended.signal).catch((error: unknown) => {
    if (ended.signal.aborted) return;
    // The caller's own source of requests failed: the call ends, and the caller gets its own error back.
    source = { error };
    call.cancel();
  });
  try {
    yield* call as AsyncIterable<Uint8Array>;
  } catch (error) {
    throw source ? source.error : toCommError(error, address, signal);
  } finally {
    ignore?.();
    ended.abort();
    call.cancel();
  }
}

/** Writes requests as fast as the server takes them; throws what the source of them throws, and nothing else. */
async function sendAll(
  call: ClientDuplexStream<Uint8Array, Uint8Array>,
  requests: AsyncIterable<Uint8Array>,
  ended: AbortSignal,
): Promise<void> {
  for await (const request of requests) {
    if (ended.aborted) return;
    // A call that fails while it is full tells its reader so; here there is only nothing left to write.
    if (!call.write(request) && !(await drained(call, ended))) return;
  }
  call.end();
}

async function drained(call: ClientDuplexStream<Uint8Array, Uint8Array>, ended: AbortSignal): Promise<boolean> {
  try {
    await once(call, 'drain', { signal: ended });
    return true;
  } catch {
    return false;
  }
}

/** A deadline that no timer can keep is none: the server would take it for one that has passed. */
function toGrpcOptions({ deadlineMs }: WireCallOptions): GrpcCallOptions {
  return deadlineMs - Date.now() <= MAX_TIMER_MS ? { deadline: deadlineMs } : {};
}

function toCommError(error: unknown, address: string, signal: AbortSignal | undefined): CommError {
  if (signal?.aborted) return abortError(signal);
  return isServiceError(error) ? fromStatus(error, address) : CommError.from(error);
}
