import { type CallContext, CommError, type ComputeFunction, type ComputeRequest } from '@splitlearn/comm';

/** What the calls of a runner need to know of it. */
export interface RunnerState {
  /** Throws where the runner is gone. */
  assertAlive(): void;
  /** What an error that comes over the connection means. */
  explain(error: unknown): Promise<unknown>;
  /** Told when a run has failed for lack of memory, before its caller is. */
  ranOutOfMemory(): void;
}

/** Calls of a runner: what it says by gRPC, and what becomes of it, in the manager's words. */
export class RunnerCalls implements ComputeFunction {
  readonly #remote: ComputeFunction;
  readonly #runner: RunnerState;
  #open = 0;
  #whenIdle: (() => void) | undefined;

  constructor(remote: ComputeFunction, runner: RunnerState) {
    this.#remote = remote;
    this.#runner = runner;
  }

  async compute(request: ComputeRequest, context: CallContext) {
    this.#runner.assertAlive();
    this.#open++;
    try {
      return await this.#remote.compute(request, context);
    } catch (error) {
      throw await this.#understand(error);
    } finally {
      this.#close();
    }
  }

  async *stream(requests: AsyncIterable<ComputeRequest>, context: CallContext) {
    this.#runner.assertAlive();
    this.#open++;
    try {
      yield* this.#remote.stream?.(requests, context) ?? [];
    } catch (error) {
      throw await this.#understand(error);
    } finally {
      this.#close();
    }
  }

  /** Calls a function as soon as no call is under way. One who has just been lent the model may still begin one. */
  whenIdle(action: () => void): void {
    this.#whenIdle = action;
    if (this.#open === 0) this.#notice();
  }

  #close(): void {
    if (--this.#open === 0) this.#notice();
  }

  #notice(): void {
    setImmediate(() => {
      if (this.#open === 0) this.#whenIdle?.();
    });
  }

  async #understand(error: unknown): Promise<unknown> {
    if (error instanceof CommError && error.reason === 'INSUFFICIENT_MEMORY') this.#runner.ranOutOfMemory();
    return this.#runner.explain(error);
  }
}
