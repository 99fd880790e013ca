import { setTimeout as delay } from 'node:timers/promises';
import type { CallContext, CommError, ComputeFunction, ComputeRequest, ComputeResponse } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import { createModelRuntime } from '../runtime/model-runtime.js';
import { type HostOptions, type ModelHost, unloaded } from './model-host.js';

/** How long the calls of a model that is ended may take to heed that, in milliseconds. */
const STOP_MS = 1_000;

/**
 * Runs a model in a thread of this process.
 *
 * @throws ManagerError what the engine says; `INVALID_CONFIG` for a limit of memory, which nothing can hold a thread to.
 */
export async function startThreadHost({
  maxMessageLength: _,
  maxMemoryBytes,
  ...options
}: HostOptions): Promise<ModelHost> {
  if (maxMemoryBytes !== undefined) {
    throw new ManagerError(
      'INVALID_CONFIG',
      `model '${options.modelId}' cannot have maxMemoryBytes with isolation 'thread', because threads share the memory ` +
        "of their process; leave it out, or use isolation 'process'",
    );
  }
  const before = process.memoryUsage().rss;
  const runtime = createModelRuntime(options);
  await runtime.setup?.();
  const [info] = (await runtime.info?.())?.models ?? [];
  const calls = new OpenCalls(runtime);
  return {
    computeFn: calls,
    info: { ...info },
    pid: process.pid,
    // A thread that dies is replaced by the runtime itself; a native crash takes this process along.
    died: new Promise(() => {}),
    // Threads share their process's memory, so growth since before the load is the closest that can be said.
    memoryBytes: async () => Math.max(0, process.memoryUsage().rss - before),
    stop: async () => {
      calls.abortAll(unloaded(options.modelId).toCommError());
      // Not before: native code whose thread is ended under it takes the whole process along.
      const ended = calls.idle().then(() => runtime.teardown?.());
      await Promise.race([ended, delay(STOP_MS, undefined, { ref: false })]);
    },
  };
}

/** A compute function whose calls can be ended from this side as well. */
class OpenCalls implements ComputeFunction {
  readonly #computeFn: ComputeFunction;
  readonly #open = new Set<AbortController>();
  #whenIdle: (() => void) | undefined;

  constructor(computeFn: ComputeFunction) {
    this.#computeFn = computeFn;
  }

  async compute(request: ComputeRequest, context: CallContext): Promise<ComputeResponse> {
    using call = this.#begin(context);
    return await this.#computeFn.compute(request, call.context);
  }

  async *stream(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse> {
    using call = this.#begin(context);
    yield* this.#computeFn.stream?.(requests, call.context) ?? [];
  }

  abortAll(reason: CommError): void {
    for (const call of this.#open) call.abort(reason);
  }

  /** Resolves when no call is under way. */
  async idle(): Promise<void> {
    if (this.#open.size > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
  }

  /** Not with `AbortSignal.any`: what it makes lives as long as its sources, and one of them would be the model's. */
  #begin(context: CallContext): Disposable & { readonly context: CallContext } {
    const call = new AbortController();
    const { signal } = context;
    const abort = () => call.abort(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort);
    this.#open.add(call);
    return {
      context: { ...context, signal: call.signal },
      [Symbol.dispose]: () => {
        signal.removeEventListener('abort', abort);
        this.#open.delete(call);
        if (this.#open.size === 0) this.#whenIdle?.();
      },
    };
  }
}
