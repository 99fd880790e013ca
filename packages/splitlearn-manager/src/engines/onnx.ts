import { type DType, isDType, type Model, markMovable, type Tensor } from '@splitlearn/comm/model';
import type { InferenceSession, Tensor as OnnxTensor, TensorConstructor } from 'onnxruntime-node';
import { ManagerError } from '../errors.js';
import type { Engine, EngineOptions } from './engine.js';
import { checkInputs, type OnnxValues, selectOutputs } from './onnx-checks.js';
import { loadError, runError } from './onnx-errors.js';
import { sessionOptions } from './onnx-session-options.js';
import { warmUp } from './onnx-warm-up.js';

/**
 * Loads any ONNX file: named tensors in, named tensors out. External data files are found beside it.
 *
 * State, such as a KV cache or the state of an LSTM, is an input and an output like any other: the caller keeps it.
 * Inputs that have a default (an initializer of the same name) always have it, and are not among the model's inputs:
 * ONNX Runtime for Node.js cannot be given another value. Outputs that are no tensors, such as the maps that
 * scikit-learn's classifiers give, are left out; `info.attributes.outputsLeftOut` names them.
 *
 * The outputs of a run are copies that ONNX Runtime does not hold on to: each has a whole `ArrayBuffer` to itself, and
 * is marked as movable to another thread.
 *
 * ONNX Runtime keeps the memory that its largest run needed until the model is disposed of; and once a run has failed
 * for lack of memory, the next one may reserve all there is. A process host therefore replaces its process then.
 *
 * External data must lie inside the model's folder: ONNX Runtime follows neither `..` nor links that lead out of it.
 *
 * @throws ManagerError `SOURCE_NOT_FOUND` when there is no such file; `DEVICE_UNAVAILABLE` when the device or its
 * runtime is not there; `INSUFFICIENT_MEMORY` when memory ran out;
 * `MODEL_LOAD_FAILED` when ONNX Runtime cannot load the file, or the model cannot be used with tensors alone. A run
 * throws `INVALID_INPUT` before anything is computed, `INSUFFICIENT_MEMORY` when memory ran out, `INFERENCE_FAILED`
 * when ONNX Runtime refused, and the signal's reason when the call was aborted before it began. What ONNX Runtime
 * threw is the `cause`.
 */
export const loadOnnxModel: Engine = async (options) => {
  const { modelId } = options;
  const { runtime, session } = await open(options).catch(async (error) => {
    throw await loadError(options, error);
  });
  const inputs = sortValues(session.inputMetadata);
  const outputs = sortValues(session.outputMetadata);
  const [input] = inputs.others;
  if (input || outputs.tensors.length === 0) {
    await session.release();
    const problem = input ? `its input '${input.name}' is ${input.what}` : 'it has no output that a tensor can be';
    const message = `model '${modelId}' (${options.file}) cannot be used, because ${problem}: export it with tensors only`;
    throw new ManagerError('MODEL_LOAD_FAILED', message);
  }
  const leftOut = outputs.others.map(({ name, what }) => `'${name}' is ${what}`).join('; ');
  const model: Model = {
    info: {
      inputs: inputs.tensors,
      outputs: outputs.tensors,
      attributes: {
        runtime: `onnxruntime ${runtime.env.versions.node}`,
        ...(leftOut && { outputsLeftOut: leftOut }),
      },
    },
    async run(given, call) {
      // The last moment for it: ONNX Runtime for Node.js cannot be told to stop a run.
      call.signal.throwIfAborted();
      checkInputs(modelId, inputs.tensors, given);
      const fetches = selectOutputs(modelId, outputs, call.outputs);
      try {
        const feeds = mapValues(given, (tensor) => toOnnx(tensor, runtime.Tensor));
        return markMovable(mapValues(await session.run(feeds, fetches), fromOnnx));
      } catch (error) {
        throw runError(modelId, given, error);
      }
    },
    dispose: () => session.release(),
  };
  if (options.warmup ?? true) await warmUp(model);
  return model;
};

async function open(options: EngineOptions) {
  const runtime = await import('onnxruntime-node');
  const session = await runtime.InferenceSession.create(options.file, sessionOptions(options));
  return { runtime, session };
}

/** Tells the inputs or outputs that a tensor can be from all others. */
function sortValues(values: readonly InferenceSession.ValueMetadata[]): OnnxValues {
  const sorted: OnnxValues = { tensors: [], others: [] };
  for (const value of values) {
    const { name } = value;
    if (!value.isTensor) sorted.others.push({ name, what: 'a sequence, a map or an optional value' });
    else if (!isDType(value.type)) sorted.others.push({ name, what: `of element type ${value.type}` });
    else sorted.tensors.push({ name, dtype: value.type, shape: value.shape.map((size) => (size === '' ? '?' : size)) });
  }
  return sorted;
}

function mapValues<From, To>(record: Readonly<Record<string, From>>, map: (value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, map(value)]));
}

function toOnnx({ dtype, shape, data }: Tensor, Tensor: TensorConstructor): OnnxTensor {
  // The binding refuses shared memory on Node 20.
  const own = ArrayBuffer.isView(data) && data.buffer instanceof SharedArrayBuffer ? data.slice() : data;
  if (dtype !== 'float16') return new Tensor(dtype as OnnxTensor.Type, own as OnnxTensor.DataType, shape);
  // Where there is a Float16Array (Node 24 and later), the constructor would put one over the bits, and in that the
  // binding of 1.30 finds no data. So it learns that these are no integers only after it has taken the bits.
  return Object.assign<OnnxTensor, object>(new Tensor('uint16', own as Uint16Array, shape), { type: 'float16' });
}

function fromOnnx({ type, dims, data }: OnnxTensor): Tensor {
  const { buffer, byteOffset, length } = data as Uint16Array;
  const bits = type === 'float16' ? new Uint16Array(buffer, byteOffset, length) : data;
  return { dtype: type as DType, shape: dims, data: bits } as Tensor;
}
