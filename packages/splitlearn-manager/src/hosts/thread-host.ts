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
  const before = process.memoryUsage.rss();
  const runtime = createModelRuntime(options);
  await runtime.setup?.();
  // Threads share their process's memory: by how much it grew meanwhile is the closest that can be said.
  const loadedBytes = Math.max(0, process.memoryUsage.rss() - before);
  const [info] = (await runtime.info?.())?.models ?? [];
  const calls = new OpenCalls(runtime);
  return {
    computeFn: calls,
    info: { ...info },
    pid: process.pid,
    // A thread that dies is replaced by the runtime itself; a native crash takes this process along.
    died: new Promise(() => {}),
    memoryBytes: async () => loadedBytes,
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
  readonly #open: OpenCall[] = [];
  #whenIdle: (() => void) | undefined;

  constructor(computeFn: ComputeFunction) {
    this.#computeFn = computeFn;
  }

  async compute(request: ComputeRequest, context: CallContext): Promise<ComputeResponse> {
    const call = this.#begin(context);
    try {
      return await this.#computeFn.compute(request, call);
    } finally {
      this.#end(call);
    }
  }

  async *stream(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse> {
    const call = this.#begin(context);
    try {
      yield* this.#computeFn.stream?.(requests, call) ?? [];
    } finally {
      this.#end(call);
    }
  }

  abortAll(reason: CommError): void {
    for (const call of [...this.#open]) call.abort(reason);
  }

  /** Resolves when no call is under way. */
  async idle(): Promise<void> {
    if (this.#open.length > 0) await new Promise<void>((resolve) => (this.#whenIdle = resolve));
  }

  #begin(context: CallContext): OpenCall {
    const call = new OpenCall(context, this.#open.length);
    this.#open.push(call);
    return call;
  }

  #end(call: OpenCall): void {
    call.end();
    // The last one takes its place. A Set would do, but keeps its entries for longer than they live.
    const last = this.#open.pop() as OpenCall;
    if (last !== call) {
      this.#open[call.index] = last;
      last.index = call.index;
    }
    if (this.#open.length === 0) this.#whenIdle?.();
  }
}

/** A call as its model sees it. */
class OpenCall implements CallContext {
  readonly signal: AbortSignal;
  readonly requestId: string;
  readonly metadata: CallContext['metadata'];
  declare readonly deadlineMs?: number;
  /** Where it is among those that are open. */
  index: number;
  readonly #controller = new AbortController();
  readonly #callers: AbortSignal;
  readonly #abort = () => this.#controller.abort(this.#callers.reason);

  /** Not with `AbortSignal.any`: what it makes lives as long as its sources, and one of them would be the model's. */
  constructor({ signal, requestId, metadata, deadlineMs }: CallContext, index: number) {
    this.signal = this.#controller.signal;
    this.requestId = requestId;
    this.metadata = metadata;
    if (deadlineMs !== undefined) this.deadlineMs = deadlineMs;
    this.index = index;
    this.#callers = signal;
    if (signal.aborted) this.#abort();
    else signal.addEventListener('abort', this.#abort);
  }

  abort(reason: CommError): void {
    this.#controller.abort(reason);
  }

  end(): void {
    this.#callers.removeEventListener('abort', this.#abort);
  }
}
