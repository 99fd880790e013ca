import type { CallContext, ComputeFunction, ComputeRequest, ComputeResponse } from '../compute-function.js';
import { CommError } from '../errors.js';
import type { Tensors } from '../tensor.js';

/** A function from named tensors to named tensors. */
export type Lambda = (
  inputs: Tensors,
  context: CallContext & { request: ComputeRequest },
) => Tensors | Promise<Tensors>;

/**
 * A compute function made of a plain function. It runs in the serving thread, concurrently with itself: a function that
 * computes for more than a few milliseconds belongs into `AsyncModelComputeFunction` with a `WorkerExecutor`.
 *
 * @example
 * new AsyncLambdaComputeFunction(({ a, b }) => ({ sum: add(a, b) }))
 */
export class AsyncLambdaComputeFunction implements ComputeFunction {
  readonly #fn: Lambda;

  constructor(fn: Lambda) {
    if (typeof fn !== 'function')
      throw new CommError('INVALID_ARGUMENT', `fn must be a function of tensors; it is ${typeof fn}`);
    this.#fn = fn;
  }

  async compute(request: ComputeRequest, context: CallContext): Promise<ComputeResponse> {
    const lambdaContext = new LambdaContext(context, request);
    return { outputs: await this.#fn(request.inputs, lambdaContext) };
  }
}

/** A call's context and its request. The signal is only looked at when the function does: most do not. */
class LambdaContext implements CallContext {
  static readonly #signal = { get: LambdaContext.#readSignal, enumerable: true };
  declare readonly signal: AbortSignal;
  readonly requestId: string;
  readonly metadata: Readonly<Record<string, string>>;
  declare readonly deadlineMs?: number;
  readonly request: ComputeRequest;
  readonly #context: CallContext;

  constructor(context: CallContext, request: ComputeRequest) {
    this.#context = context;
    Object.defineProperty(this, 'signal', LambdaContext.#signal);
    this.requestId = context.requestId;
    this.metadata = context.metadata;
    if (context.deadlineMs !== undefined) this.deadlineMs = context.deadlineMs;
    this.request = request;
  }

  static #readSignal(this: LambdaContext): AbortSignal {
    // biome-ignore lint/complexity/noThisInStatic: a getter, called on the context
    return this.#context.signal;
  }
}
