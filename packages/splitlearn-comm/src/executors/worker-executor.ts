import { pathToFileURL } from 'node:url';
import { assertInteger } from '../check-options.js';
import { CommError } from '../errors.js';
import type { Executed, Executor, Model, ModelCall } from '../model.js';
import type { Tensors } from '../tensor.js';
import { TaskQueue } from './task-queue.js';
import { WorkerThread } from './worker-thread.js';

export interface WorkerExecutorOptions {
  /** How many threads, each with a copy of the model. At most as many calls run at once. */
  readonly threads: number;
  /** How many calls may wait for a thread. Default 256; 0 refuses whatever comes while all are busy. */
  readonly maxQueue?: number;
  /** Given to the model's factory in each thread; anything that structured clone can copy. */
  readonly data?: unknown;
}

/**
 * Runs a model in worker threads, so that what it computes never holds up the thread that serves. The model is given as
 * the URL or path of a module whose default export is the model, or a function that makes one of `data`. What such a module
 * needs of this package is in `@splitlearn/comm/model` too, which leaves gRPC out and loads several times faster.
 *
 * Large tensors of a received request are moved to the thread, not copied; others are copied once. A thread that dies
 * fails the call it had with `UNAVAILABLE` (reason `WORKER_CRASHED`), and the next call gets a new one.
 */
export class WorkerExecutor implements Executor<string | URL> {
  readonly #threads: number;
  readonly #data: unknown;
  readonly #queue: TaskQueue;
  readonly #idle: WorkerThread[] = [];
  readonly #busy: WorkerThread[] = [];
  #moduleUrl: string | undefined;

  constructor({ threads, maxQueue = 256, data }: WorkerExecutorOptions) {
    assertInteger('threads', threads, 1);
    this.#threads = threads;
    this.#data = data;
    this.#queue = new TaskQueue({ concurrency: threads, maxQueue });
  }

  /** @throws whatever the module throws when it is loaded; all threads are ended then. */
  async start(source: string | URL): Promise<Model['info']> {
    if (this.#moduleUrl)
      throw new CommError('FAILED_PRECONDITION', 'this WorkerExecutor already runs a model; make another');
    const isUrl = source instanceof URL || source.startsWith('file:');
    this.#moduleUrl = isUrl ? String(source) : pathToFileURL(source).href;
    const loading = await Promise.allSettled(Array.from({ length: this.#threads }, () => this.#spawn()));
    const loaded = loading.filter((result) => result.status === 'fulfilled').map((result) => result.value);
    const failed = loading.find((result) => result.status === 'rejected');
    if (failed) {
      await Promise.all(loaded.map(({ thread }) => thread.kill()));
      this.#moduleUrl = undefined;
      throw failed.reason;
    }
    this.#idle.push(...loaded.map(({ thread }) => thread));
    return loaded[0]?.info;
  }

  async run(inputs: Tensors, call: ModelCall): Promise<Executed> {
    let result: Executed | undefined;
    for await (const executed of this.#call('run', inputs, call)) result = executed;
    if (!result) throw new Error('a run ended without a result');
    return result;
  }

  stream(inputs: Tensors, call: ModelCall): AsyncIterable<Executed> {
    return this.#call('stream', inputs, call);
  }

  /** @throws whatever the model throws when it is disposed of; all threads are ended even so. */
  async stop(): Promise<void> {
    await this.#queue.close();
    // A thread that is busy still has been told to stop, and does not heed it.
    const ended = [
      ...this.#idle.splice(0).map((thread) => thread.close()),
      ...this.#busy.map((thread) => thread.kill()),
    ];
    const failed = (await Promise.allSettled(ended)).find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
  }

  async *#call(kind: 'run' | 'stream', inputs: Tensors, call: ModelCall): AsyncGenerator<Executed, void> {
    const turn = await this.#queue.enter(call.signal);
    try {
      const thread = await this.#takeThread();
      this.#busy.push(thread);
      try {
        for await (const piece of thread.call(kind, inputs, call)) yield { ...piece, queueMs: turn.queueMs };
      } finally {
        this.#busy.splice(this.#busy.indexOf(thread), 1);
        if (!thread.dead) this.#idle.push(thread);
      }
    } finally {
      turn.leave();
    }
  }

  /** A turn in the queue is the right to a thread: an idle one, or a new one in the place of one that died. */
  async #takeThread(): Promise<WorkerThread> {
    for (let thread = this.#idle.pop(); thread; thread = this.#idle.pop()) if (!thread.dead) return thread;
    return (await this.#spawn()).thread;
  }

  async #spawn(): Promise<{ thread: WorkerThread; info: Model['info'] }> {
    if (!this.#moduleUrl) throw new CommError('FAILED_PRECONDITION', 'this WorkerExecutor has not been started');
    const thread = new WorkerThread({ moduleUrl: this.#moduleUrl, data: this.#data });
    return { thread, info: await thread.load() };
  }
}
