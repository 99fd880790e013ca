import {
  type CallContext,
  type ComputeFunction,
  type ComputeRequest,
  type ComputeResponse,
  type ComputeTiming,
  streamByCompute,
} from '../compute-function.js';
import { CommError } from '../errors.js';

/**
 * Stages in a row: the outputs of one are the inputs of the next, by name. Parameters go to every stage, `outputs` to
 * the last. A stream goes through the streams of all stages, so each keeps its own state for the session.
 */
export class AsyncChainComputeFunction implements ComputeFunction {
  readonly #stages: readonly ComputeFunction[];

  constructor(functions: readonly ComputeFunction[]) {
    if (functions.length === 0) throw new CommError('INVALID_ARGUMENT', 'a chain needs at least one compute function');
    this.#stages = [...functions];
  }

  /** Sets the stages up in their order; when one fails, those before it are torn down again. */
  async setup(): Promise<void> {
    for (const [index, stage] of this.#stages.entries()) {
      try {
        await stage.setup?.();
      } catch (error) {
        // What failed first is what matters.
        await teardown(this.#stages.slice(0, index)).catch(() => {});
        throw error;
      }
    }
  }

  async compute(request: ComputeRequest, context: CallContext): Promise<ComputeResponse> {
    let { inputs } = request;
    const timing = { queueMs: 0, computeMs: 0 };
    for (const [index, stage] of this.#stages.entries()) {
      context.signal.throwIfAborted();
      const startedMs = performance.now();
      const response = await stage.compute(this.#stageRequest(request, inputs, index), context);
      add(timing, response.timing ?? { queueMs: 0, computeMs: performance.now() - startedMs });
      inputs = response.outputs;
    }
    return { outputs: inputs, timing };
  }

  stream(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse> {
    const latest: { request?: ComputeRequest } = {};
    let stream = this.#enterFirst(requests, latest);
    for (const [index, stage] of this.#stages.entries()) {
      const responses = stage.stream?.(stream, context) ?? streamByCompute(stage, stream, context);
      if (index === this.#stages.length - 1) return responses;
      stream = this.#toNext(responses, latest, index + 1);
    }
    throw new Error('unreachable: a chain has a last stage');
  }

  async teardown(): Promise<void> {
    await teardown(this.#stages);
  }

  async *#enterFirst(requests: AsyncIterable<ComputeRequest>, latest: { request?: ComputeRequest }) {
    for await (const request of requests) {
      latest.request = request;
      yield this.#stageRequest(request, request.inputs, 0);
    }
  }

  /** What goes with the tensors (parameters, outputs) is that of the request that was read last. */
  async *#toNext(responses: AsyncIterable<ComputeResponse>, latest: { request?: ComputeRequest }, index: number) {
    for await (const { outputs } of responses)
      yield this.#stageRequest(latest.request ?? { inputs: {} }, outputs, index);
  }

  #stageRequest(request: ComputeRequest, inputs: ComputeRequest['inputs'], index: number): ComputeRequest {
    const last = index === this.#stages.length - 1;
    return { ...request, inputs, outputs: last ? (request.outputs ?? []) : [] };
  }
}

function add(sum: { queueMs: number; computeMs: number }, timing: ComputeTiming): void {
  sum.queueMs += timing.queueMs;
  sum.computeMs += timing.computeMs;
}

/** Last to first, and all of them even when one fails. */
async function teardown(stages: readonly ComputeFunction[]): Promise<void> {
  const failures: unknown[] = [];
  for (const stage of [...stages].reverse()) {
    try {
      await stage.teardown?.();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw new AggregateError(failures, 'stages of a chain failed to be torn down');
}
