import type { Model, ModelCall, Tensors } from '@splitlearn/comm';
import { type Deferred, deferred } from './deferred.js';

/** One run of a gated model: when it begins, and what it answers. */
export interface Run {
  readonly begun: Deferred<ModelCall>;
  readonly answer: Deferred<Tensors>;
}

/** A model whose runs begin and end under the eyes of the test. */
export class GatedModel implements Model {
  readonly #runs: Run[] = [];
  #count = 0;

  /** How many runs have begun. */
  get count(): number {
    return this.#count;
  }

  /** The run of that number, from 0, be it begun or not. */
  at(index: number): Run {
    this.#runs[index] ??= { begun: deferred(), answer: deferred() };
    return this.#runs[index];
  }

  run(_: Tensors, call: ModelCall): Promise<Tensors> {
    const { begun, answer } = this.at(this.#count++);
    begun.resolve(call);
    return answer.promise;
  }
}
