import { parentPort, workerData } from 'node:worker_threads';
import { CommError, errorFromPlain, errorToPlain } from '../errors.js';
import type { Model, ModelCall } from '../model.js';
import type { Tensors } from '../tensor.js';
import { packTensors } from '../transfer.js';
import { type FromWorker, type PlainCall, STREAM_WINDOW, type ToWorker, type WorkerStart } from './worker-messages.js';

// The entry of a WorkerExecutor's thread: loads the model, then serves one call at a time.

if (!parentPort) throw new Error('worker-main.js is the entry of a worker thread');
const port = parentPort;
const { moduleUrl, data } = workerData as WorkerStart;

let cancel: AbortController | undefined;
let credit = 0;
let wake: (() => void) | undefined;

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
  try {
    let startedMs = performance.now();
    if (kind === 'run' || !model.stream) {
      sendPiece(await model.run(inputs, call), startedMs, true);
      return;
    }
    for await (const outputs of model.stream(inputs, call)) {
      sendPiece(outputs, startedMs, false);
      credit--;
      while (credit === 0 && !signal.aborted) await new Promise<void>((resolve) => (wake = resolve));
      signal.throwIfAborted();
      startedMs = performance.now();
    }
    send({ type: 'end' });
  } catch (error) {
    send({ type: 'error', error: errorToPlain(error) });
  }
}

function sendPiece(outputs: Tensors, startedMs: number, last: boolean): void {
  const computeMs = performance.now() - startedMs;
  const { tensors, transfer } = packTensors(outputs);
  send({ type: 'piece', outputs: tensors, computeMs, last }, transfer);
}

function send(message: FromWorker, transfer: ArrayBuffer[] = []): void {
  port.postMessage(message, transfer);
}
