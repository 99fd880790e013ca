import { stat } from 'node:fs/promises';
import type { Tensors } from '@splitlearn/comm/model';
import { ManagerError } from '../errors.js';
import type { EngineOptions } from './engine.js';
import { listTensors } from './onnx-checks.js';

const OUT_OF_MEMORY = /bad[_ ]alloc|failed to allocate memory|array buffer allocation failed/i;

/** What ONNX Runtime says where the device's library does not load, is not built in, or finds no device. */
const NO_DEVICE = /failed to load shared library|backend not found|adapter|cuda failure|execution ?provider/i;

/** What to do about an error of ONNX Runtime, by what its message says: it has no codes in JavaScript. */
const LOAD_ADVICE: readonly (readonly [RegExp, string])[] = [
  [
    /protobuf parsing failed|does not have a graph/i,
    'The file is no ONNX model or only a part of one: download or export it again; where git brought it, `git lfs pull`.',
  ],
  [
    /escapes model directory|absolute path not allowed/i,
    'The model names a file outside of its folder to read weights from, which is never done: if you trust it, put the ' +
      'file itself, not a link, beside the model.',
  ],
  [
    /external (data|initializer)/i,
    'The model keeps weights in further files: all of them must lie in its folder, whole and under their first names.',
  ],
  [
    /opset|no op registered|not a registered function|could not find an implementation/i,
    'This ONNX Runtime does not know what the model asks for: export it for an older opset and without custom operators.',
  ],
  [
    /unsupported data type/i,
    'ONNX Runtime for Node.js has no such type of inputs and outputs (16 is bfloat16): export it as float32 or float16.',
  ],
  [
    /onnxruntime_binding|libonnxruntime/i,
    `ONNX Runtime itself did not load: see whether onnxruntime-node supports ${process.platform} on ${process.arch}.`,
  ],
];

/** The error for a device that is not there; `undefined` for an error that is of another kind. */
export function deviceError({ modelId, device = 'cpu' }: EngineOptions, error: unknown): ManagerError | undefined {
  const message = messageOf(error);
  if (device === 'cpu' || !NO_DEVICE.test(message)) return undefined;
  return new ManagerError(
    'DEVICE_UNAVAILABLE',
    `model '${modelId}' cannot be loaded on the device '${device}': ${sentence(message)} See that the machine has it ` +
      "and that its runtime is installed, or set device to 'cpu'.",
    { cause: error },
  );
}

/** The error to throw in place of one that came of loading a model. */
export async function loadError(engineOptions: EngineOptions, error: unknown): Promise<ManagerError> {
  const { modelId, file } = engineOptions;
  const options = { cause: error };
  let bytes: number;
  try {
    bytes = (await stat(file)).size;
  } catch (problem) {
    const reason = messageOf(problem);
    return new ManagerError('SOURCE_NOT_FOUND', `the file of model '${modelId}' cannot be found: ${reason}`, options);
  }
  const noDevice = deviceError(engineOptions, error);
  if (noDevice) return noDevice;
  const message = messageOf(error).replace(`Load model from ${file} failed:`, '');
  const what = `model '${modelId}' could not be loaded from ${file} (${bytes} bytes)`;
  if (isOutOfMemory(error)) {
    return new ManagerError('INSUFFICIENT_MEMORY', `${what}: there is not enough memory for it: ${message}`, options);
  }
  const advice =
    LOAD_ADVICE.find(([pattern]) => pattern.test(message))?.[1] ?? 'See whether `onnx.checker` accepts it.';
  return new ManagerError('MODEL_LOAD_FAILED', `${what}: ${sentence(message)} ${advice}`, options);
}

/** The error to throw in place of one that came of a run with these inputs. */
export function runError(modelId: string, inputs: Tensors, error: unknown): ManagerError {
  const message = sentence(messageOf(error));
  const given = listTensors(Object.entries(inputs).map(([name, { dtype, shape }]) => ({ name, dtype, shape })));
  return isOutOfMemory(error)
    ? new ManagerError(
        'INSUFFICIENT_MEMORY',
        `model '${modelId}' ran out of memory: ${message} It was given ${given}; try a smaller batch or shorter inputs.`,
        { cause: error },
      )
    : new ManagerError(
        'INFERENCE_FAILED',
        `model '${modelId}' failed: ${message} It was given ${given}; check that these shapes go together, and that ` +
          'values which are used as indices, such as token ids and positions, are within their range.',
        { cause: error },
      );
}

/** Whether an error of ONNX Runtime says that there is no memory left. */
export function isOutOfMemory(error: unknown): boolean {
  return OUT_OF_MEMORY.test(messageOf(error));
}

/** The message of anything that was thrown, as one line. */
function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replace(/\s+/g, ' ').trim();
}

function sentence(message: string): string {
  return /[.!?]$/.test(message) ? message : `${message}.`;
}
