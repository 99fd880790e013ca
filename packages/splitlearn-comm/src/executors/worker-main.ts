import { parentPort, workerData } from 'node:worker_threads';
import { CommError, errorFromPlain, errorToPlain } from '../errors.js';
import type { Model, ModelCall } from '../model.js';
import type { Tensors } from '../tensor.js';
import { packTensors } from '../transfer.js';
import {
  type FromWorker,
  GATHER_BYTES,
  GATHER_MS,
  type Piece,
  type PlainCall,
  STREAM_WINDOW,
  type ToWorker,
  type WorkerStart,
} from './worker-messages.js';

// The entry of a WorkerExecutor's thread: loads the model, then serves one call at a time.

if (!parentPort) throw new Error('worker-main.js is the entry of a worker thread');
const port = parentPort;
const { moduleUrl, data } = workerData as WorkerStart;

let cancel: AbortController | undefined;
let credit = 0;
let wake: (() => void) | undefined;
let gathered: GatheredPieces | undefined;

// A model that ends its thread takes nothing along of what it has given before.
process.on('exit', () => gathered?.send());

try {
  const model = await loadModel();
  port.on('message', (message: ToWorker) => void receive(model, message));
  port.on('messageerror', (error) => {
    throw error;
  });
  send({ type: 'ready', info: model.info });
} catch (error) {
  send({ type: 'failed', error: errorToPlain(error) });
}

async function loadModel(): Promise<Model> {
  const { default: exported } = (await import(moduleUrl)) as { default?: unknown };
  const model = typeof exported === 'function' ? await exported(data) : exported;
  if (typeof model?.run !== 'function') {
    throw new CommError(
      'INVALID_ARGUMENT',
      `the default export of ${moduleUrl} must be a model, { run(inputs) { … } }, or a function that returns one`,
    );
  }
  return model as Model;
}

async function receive(model: Model, message: ToWorker): Promise<void> {
  switch (message.type) {
    case 'call':
      return serve(model, message.kind, message.inputs, message.call);
    case 'cancel':
      cancel?.abort(errorFromPlain(message.reason));
      return wake?.();
    case 'credit':
      credit += message.pieces;
      return wake?.();
    case 'dispose':
      try {
        await model.dispose?.();
      } catch (error) {
        send({ type: 'failed', error: errorToPlain(error) });
      }
      // Not port.close(): a timer or handle that the model left behind would keep the thread alive.
      return process.exit();
  }
}

async function serve(model: Model, kind: 'run' | 'stream', inputs: Tensors, plainCall: PlainCall): Promise<void> {
  cancel = new AbortController();
  credit = STREAM_WINDOW;
  const { signal } = cancel;
  const call: ModelCall = { ...plainCall, signal };
  const pieces = new GatheredPieces();
  gathered = pieces;
  try {
    let startedMs = performance.now();
    if (kind === 'run' || !model.stream) {
      const outputs = await model.run(inputs, call);
      return pieces.push(outputs, performance.now() - startedMs, true);
    }
    for await (const outputs of model.stream(inputs, call)) {
      pieces.push(outputs, performance.now() - startedMs);
      credit--;
      if (credit === 0) pieces.send();
      while (credit === 0 && !signal.aborted) await new Promise<void>((resolve) => (wake = resolve));
      signal.throwIfAborted();
      startedMs = performance.now();
    }
    pieces.send();
    send({ type: 'end' });
  } catch (error) {
    pieces.send();
    send({ type: 'error', error: errorToPlain(error) });
  }
}

/** The pieces of a stream that are still to be sent. */
class GatheredPieces {
  readonly #pieces: Piece[] = [];
  readonly #transfer = new Set<ArrayBuffer>();
  #sentMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  push(outputs: Tensors, computeMs: number, last = false): void {
    // Now, because from here on the model may do with them what it likes.
    const { tensors, transfer } = packTensors(outputs);
    this.#pieces.push({ outputs: tensors, computeMs });
    let bytes = 0;
    for (const buffer of transfer) {
      this.#transfer.add(buffer);
      bytes += buffer.byteLength;
    }
    if (last || bytes > GATHER_BYTES || performance.now() - this.#sentMs >= GATHER_MS) this.send(last);
    // For a model that waits for something else between its pieces. One that computes until the next comes to that first.
    else this.#timer ??= setTimeout(() => this.send(), GATHER_MS);
  }

  send(last = false): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#pieces.length === 0) return;
    this.#sentMs = performance.now();
    send({ type: 'pieces', pieces: this.#pieces.splice(0), last }, [...this.#transfer]);
    this.#transfer.clear();
  }
}

function send(message: FromWorker, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}
