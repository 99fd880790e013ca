import { Worker } from 'node:worker_threads';
import { CommError, errorFromPlain, errorToPlain } from '../errors.js';
import type { Model, ModelCall } from '../model.js';
import { abortError, onAbort } from '../signals.js';
import type { Tensors } from '../tensor.js';
import { packTensors } from '../transfer.js';
import { CREDIT_PIECES, type FromWorker, type Piece, type ToWorker, type WorkerStart } from './worker-messages.js';

/** How long a model may take to dispose of what it holds; then its thread is ended all the same. */
const DISPOSE_MS = 5_000;

/** One thread that holds one model and runs one call at a time. The caller sees to it that calls do not overlap. */
export class WorkerThread {
  readonly #worker: Worker;
  readonly #inbox: FromWorker[] = [];
  readonly #exited: Promise<void>;
  #wake: (() => void) | undefined;
  #death: CommError | undefined;
  #gone = false;

  /** Makes the thread; `load` waits until the model is there. */
  constructor(start: WorkerStart) {
    this.#worker = new Worker(new URL('./worker-main.js', import.meta.url), { workerData: start });
    this.#worker.on('message', (message: FromWorker) => {
      this.#inbox.push(message);
      this.#wake?.();
    });
    this.#worker.on('error', (error) =>
      this.#die(`failed: ${error instanceof Error ? error.message : String(error)}`, error),
    );
    this.#worker.on('messageerror', (error) => {
      this.#die(`sent what cannot be received: ${error.message}`, error);
      void this.kill();
    });
    this.#exited = new Promise((resolve) => {
      this.#worker.once('exit', (code) => {
        this.#die(`ended with exit code ${code}`);
        this.#gone = true;
        this.#wake?.();
        resolve();
      });
    });
  }

  /** Whether the thread is gone, and can serve no more calls. */
  get dead(): boolean {
    return this.#death !== undefined;
  }

  /** Waits for the model. Where it cannot be loaded, the thread is ended and the model's own error thrown. */
  async load(): Promise<Model['info']> {
    try {
      const message = await this.#next();
      if (message.type === 'ready') return message.info;
      if (message.type === 'failed') throw errorFromPlain(message.error);
      throw new Error(`the thread began with a '${message.type}' message`);
    } catch (error) {
      await this.kill();
      throw error;
    }
  }

  /** Makes the one call that may be under way, and yields what comes back: one piece for `run`, any number for `stream`. */
  async *call(kind: 'run' | 'stream', inputs: Tensors, { signal, ...call }: ModelCall): AsyncGenerator<Piece, void> {
    if (signal.aborted) throw abortError(signal);
    const packed = packTensors(inputs);
    this.#send({ type: 'call', kind, inputs: packed.tensors, call }, packed.transfer);
    const ignore = onAbort(signal, () => this.#send({ type: 'cancel', reason: errorToPlain(abortError(signal)) }));
    let answered = false;
    let taken = 0;
    try {
      for (;;) {
        const message = await this.#next();
        answered = isAnswer(message);
        if (message.type === 'end') return;
        if (message.type === 'error') throw errorFromPlain(message.error);
        if (message.type !== 'pieces') throw new Error(`the thread sent a '${message.type}' message during a call`);
        for (const piece of message.pieces) {
          yield piece;
          if (++taken < CREDIT_PIECES || message.last) continue;
          this.#send({ type: 'credit', pieces: taken });
          taken = 0;
        }
        if (message.last) return;
      }
    } finally {
      ignore();
      // A thread that dies of it fails nobody any more.
      if (!answered && !this.dead) await this.#abandon().catch(() => {});
    }
  }

  /**
   * Lets the model dispose of what it holds, and waits for the thread to end.
   *
   * @throws whatever the model throws; the thread is gone even so.
   */
  async close(): Promise<void> {
    const overdue = setTimeout(() => void this.kill(), DISPOSE_MS);
    this.#send({ type: 'dispose' });
    await this.#exited;
    clearTimeout(overdue);
    const last = this.#inbox.at(-1);
    if (last?.type === 'failed') throw errorFromPlain(last.error);
  }

  /** Ends the thread at once. */
  async kill(): Promise<void> {
    await this.#worker.terminate();
  }

  /** The reader went away in the middle of a stream: stop the model, and leave the thread free for the next call. */
  async #abandon(): Promise<void> {
    this.#send({
      type: 'cancel',
      reason: errorToPlain(new CommError('CANCELLED', 'nobody reads the stream any more')),
    });
    for (;;) {
      if (isAnswer(await this.#next())) return;
    }
  }

  async #next(): Promise<FromWorker> {
    for (;;) {
      const message = this.#inbox.shift();
      if (message) return message;
      // Not as soon as it fails: what it said before comes first.
      if (this.#gone) throw this.#death;
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #send(message: ToWorker, transfer: ArrayBuffer[] = []): void {
    this.#worker.postMessage(message, transfer);
  }

  #die(how: string, cause?: unknown): void {
    this.#death ??= new CommError(
      'UNAVAILABLE',
      `the worker thread that ran the model ${how}; the next call gets a new thread`,
      { reason: 'WORKER_CRASHED', cause },
    );
  }
}

/** Whether a message ends a call. */
function isAnswer(message: FromWorker): boolean {
  return message.type === 'end' || message.type === 'error' || (message.type === 'pieces' && message.last);
}
