import type { ComputeFunction } from '@splitlearn/comm';

/**
 * The right to use a model. While it is held the model is neither unloaded nor evicted; a model that is being unloaded
 * waits for it.
 *
 * @example
 * await using lease = await manager.acquire('tiny-gpt2');
 * const response = await lease.model.compute(request, context);
 */
export class ModelLease implements AsyncDisposable {
  readonly modelId: string;
  /** What answers the model's requests. Not to be used once the lease is released. */
  readonly model: ComputeFunction;
  #release: (() => void) | undefined;

  constructor(modelId: string, model: ComputeFunction, release: () => void) {
    this.modelId = modelId;
    this.model = model;
    this.#release = release;
  }

  /** Gives the lease back. Doing so again does nothing. */
  release(): void {
    this.#release?.();
    this.#release = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release();
  }
}
