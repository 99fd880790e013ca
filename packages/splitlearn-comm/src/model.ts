import type { JsonValue, ModelInfo } from './compute-function.js';
import type { Tensors } from './tensor.js';

/** What a model knows of the run it is asked for. */
export interface ModelCall {
  readonly parameters: Readonly<Record<string, JsonValue>>;
  /** The names of the outputs that are wanted; empty: all. */
  readonly outputs: readonly string[];
  /** Aborted when nobody waits for the answer any more; its `reason` is a `CommError`. */
  readonly signal: AbortSignal;
  readonly requestId: string;
}

/** Something that computes tensors from tensors. An executor decides where and when it runs. */
export interface Model {
  run(inputs: Tensors, call: ModelCall): Tensors | Promise<Tensors>;
  /** The answer piece by piece, such as text token by token. */
  stream?(inputs: Tensors, call: ModelCall): AsyncIterable<Tensors>;
  /** Inputs, outputs and attributes, for `GetServiceInfo`. */
  readonly info?: Omit<ModelInfo, 'name' | 'state'>;
  dispose?(): void | Promise<void>;
}

/** The result of a run, and how long it waited for its turn and took. */
export interface Executed {
  readonly outputs: Tensors;
  readonly queueMs: number;
  readonly computeMs: number;
}

/**
 * Decides where and when a model runs. `Source` is what it makes the model of: the model itself where it runs in this
 * thread, the URL of a module where it does not.
 *
 * Every executor has a bounded queue: past it `run` and `stream` throw `RESOURCE_EXHAUSTED` (reason `QUEUE_FULL`) at
 * once. A call whose signal is aborted while it is queued leaves the queue and never runs.
 */
export interface Executor<Source> {
  /** Loads the model; called once, before any run. */
  start(source: Source): Promise<Model['info']>;
  run(inputs: Tensors, call: ModelCall): Promise<Executed>;
  /** Falls back on `run`, whose result is then the only piece, for a model that has no `stream`. */
  stream(inputs: Tensors, call: ModelCall): AsyncIterable<Executed>;
  /**
   * Lets runs that have begun finish, refuses those that are queued, and disposes of the model. A run that was cancelled
   * and goes on nevertheless is given up after a second.
   */
  stop(): Promise<void>;
}
