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
    const { requestId, metadata, deadlineMs } = context;
    const lambdaContext = {
      // Made only when it is looked at: most functions do not.
      get signal() {
        return context.signal;
      },
      requestId,
      metadata,
      ...(deadlineMs !== undefined && { deadlineMs }),
      request,
    };
    return { outputs: await this.#fn(request.inputs, lambdaContext) };
  }
}
