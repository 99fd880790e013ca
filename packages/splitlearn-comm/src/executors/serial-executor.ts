import { CommError } from '../errors.js';
import type { Executed, Executor, Model, ModelCall } from '../model.js';
import type { Tensors } from '../tensor.js';
import { TaskQueue } from './task-queue.js';

export interface SerialExecutorOptions {
  /** How many calls may wait for the one that runs. Default 256; 0 refuses whatever comes while one runs. */
  readonly maxQueue?: number;
}

/**
 * Runs a model in this thread, one call at a time, first in, first out. The right choice for a model that waits (for a
 * GPU, a file, another service) or takes microseconds; one that computes for longer belongs into a `WorkerExecutor`,
 * because while it computes here the server answers nobody.
 */
export class SerialExecutor implements Executor<Model> {
  readonly #queue: TaskQueue;
  #model: Model | undefined;

  constructor({ maxQueue = 256 }: SerialExecutorOptions = {}) {
    this.#queue = new TaskQueue({ concurrency: 1, maxQueue });
  }

  async start(model: Model): Promise<Model['info']> {
    if (this.#model)
      throw new CommError('FAILED_PRECONDITION', 'this SerialExecutor already runs a model; make another');
    this.#model = model;
    return model.info;
  }

  async run(inputs: Tensors, call: ModelCall): Promise<Executed> {
    const model = this.#started();
    const turn = await this.#queue.enter(call.signal);
    try {
      const startedMs = performance.now();
      const outputs = await model.run(inputs, call);
      return { outputs, queueMs: turn.queueMs, computeMs: performance.now() - startedMs };
    } finally {
      turn.leave();
    }
  }

  async *stream(inputs: Tensors, call: ModelCall): AsyncIterable<Executed> {
    const model = this.#started();
    if (!model.stream) return yield await this.run(inputs, call);
    const turn = await this.#queue.enter(call.signal);
    try {
      let startedMs = performance.now();
      for await (const outputs of model.stream(inputs, call)) {
        yield { outputs, queueMs: turn.queueMs, computeMs: performance.now() - startedMs };
        startedMs = performance.now();
      }
    } finally {
      turn.leave();
    }
  }

  async stop(): Promise<void> {
    await this.#queue.close();
    await this.#model?.dispose?.();
  }

  #started(): Model {
    if (!this.#model) throw new CommError('FAILED_PRECONDITION', 'this SerialExecutor has not been started');
    return this.#model;
  }
}
