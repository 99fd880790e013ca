import { randomUUID } from 'node:crypto';
import { CommError } from './errors.js';
import type { DType, Tensors } from './tensor.js';

/** A JSON value, as `google.protobuf.Struct` carries it: numbers are doubles. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** Named tensors for a compute function, and what goes with them. */
export interface ComputeRequest {
  /** Which model is meant. Default: the only one there is. Plain compute functions ignore it. */
  readonly model?: string;
  readonly inputs: Tensors;
  /** Whatever the function takes beside tensors, such as `{ temperature: 0.8 }`. */
  readonly parameters?: Readonly<Record<string, JsonValue>>;
  /** The names of the outputs that are wanted. Default: all. */
  readonly outputs?: readonly string[];
}

/** Named tensors from a compute function. */
export interface ComputeResponse {
  /** Which model answered, where the function serves several. */
  readonly model?: string;
  readonly outputs: Tensors;
  readonly timing?: ComputeTiming;
}

/** Where a compute function spent its time. */
export interface ComputeTiming {
  /** Milliseconds that the work waited for an executor. */
  readonly queueMs: number;
  /** Milliseconds inside the model or function. */
  readonly computeMs: number;
  /**
   * Rows (of the first axis) that were computed in the same run, with those of other requests; absent where requests
   * are not put together.
   */
  readonly batchSize?: number;
}

/** What a compute function knows of the call it serves. */
export interface CallContext {
  /**
   * Aborted when nobody waits for the answer any more. Its `reason` is a `CommError`: `CANCELLED` when the caller went
   * away, `DEADLINE_EXCEEDED` when its time ran out, `UNAVAILABLE` when the server is stopped by force.
   */
  readonly signal: AbortSignal;
  /** When the caller's deadline passes, in milliseconds since the epoch; absent where it set none. */
  readonly deadlineMs?: number;
  /** The caller's id for the call, or one that the server made up. */
  readonly requestId: string;
  /** The call's text metadata (HTTP/2 headers), names in lower case. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** What a server says it serves. */
export interface ServiceInfo {
  readonly name: string;
  readonly version: string;
  readonly models: readonly ModelInfo[];
}

/** A name that `ComputeRequest.model` may hold, and what is known of it. */
export interface ModelInfo {
  readonly name: string;
  /** `READY` when it can be called now. */
  readonly state: string;
  readonly inputs?: readonly TensorInfo[];
  readonly outputs?: readonly TensorInfo[];
  /** Engine, task, memory and the like: for people to read. */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** The type of an input or output. A dimension that is dynamic is given by its name in the model. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly (number | string)[];
}

/**
 * The one idea of SplitLearn: tensors in, tensors out. A user's function, a model, a chain of stages and a server on
 * another machine all have this shape, so they compose.
 *
 * `setup` is called once before the first call and `teardown` once after the last; a function that holds others passes
 * both on. Calls may come concurrently: a function that must not run twice at once puts an executor in front.
 */
export interface ComputeFunction {
  setup?(): Promise<void>;
  /** One request, one response. Throw a `CommError` to choose what the caller sees. */
  compute(request: ComputeRequest, context: CallContext): Promise<ComputeResponse>;
  /**
   * A session: state that belongs to one conversation lives exactly as long as this generator. Where it is absent,
   * every request of a stream goes to `compute`, one after the other.
   */
  stream?(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse>;
  info?(): ServiceInfo | Promise<ServiceInfo>;
  teardown?(): Promise<void>;
}

/** How a call is made without a server: in a test, or inside a compute function of one's own. */
export interface LocalCallOptions {
  /** Milliseconds until the call's deadline. Default: none. */
  readonly timeoutMs?: number;
  /** Cancels the call. It keeps a listener until it is aborted or the call's deadline passes. */
  readonly signal?: AbortSignal;
  /** Default: a random UUID. */
  readonly requestId?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** The longest that `setTimeout` waits; given more, it does not wait at all. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** A context for calling a compute function directly, without a server in between. */
export function callContext(options: LocalCallOptions = {}): CallContext {
  const { timeoutMs, signal, requestId = randomUUID(), metadata = {} } = options;
  const controller = new AbortController();
  const cancel = () => controller.abort(cancelled(signal?.reason));
  if (signal?.aborted) cancel();
  else signal?.addEventListener('abort', cancel, { once: true, signal: controller.signal });
  if (timeoutMs !== undefined && !controller.signal.aborted) {
    const expire = () => controller.abort(new CommError('DEADLINE_EXCEEDED', `no answer within ${timeoutMs} ms`));
    const timer = setTimeout(expire, Math.min(timeoutMs, MAX_TIMER_MS)).unref();
    controller.signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  }
  return {
    signal: controller.signal,
    requestId,
    metadata,
    ...(timeoutMs !== undefined && { deadlineMs: Date.now() + timeoutMs }),
  };
}

function cancelled(reason: unknown): CommError {
  return reason instanceof CommError ? reason : new CommError('CANCELLED', 'the caller cancelled', { cause: reason });
}

/** Every response of a session that is `compute` called once for each request: what a function without `stream` does. */
export async function* streamByCompute(
  computeFn: ComputeFunction,
  requests: AsyncIterable<ComputeRequest>,
  context: CallContext,
): AsyncIterable<ComputeResponse> {
  for await (const request of requests) yield await computeFn.compute(request, context);
}
