import { bytesPerElement, elementCount, type Model, type Tensor, type TensorInfo } from '@splitlearn/comm/model';

/** A model that needs more bytes of inputs than this is not warmed up: to load it is not to cost what a large request costs. */
const MOST_BYTES = 64 * 2 ** 20;

/**
 * Runs a model once on zeros, every dimension that is open being 1, so that the first request does not pay for what
 * only a first run does: memory is laid out, kernels are prepared.
 *
 * Zeros are not what every model takes. A run that fails is therefore no fault, and says nothing of the requests to come.
 */
export async function warmUp(model: Model): Promise<void> {
  try {
    const inputs = zeros(model.info?.inputs ?? []);
    if (!inputs) return;
    await model.run(inputs, {
      parameters: {},
      outputs: [],
      signal: new AbortController().signal,
      requestId: 'warm-up',
    });
  } catch {
    // As it says above.
  }
}

/** Tensors of zeros, or of empty strings; `undefined` where they would be too large. */
export function zeros(infos: readonly TensorInfo[]): Record<string, Tensor> | undefined {
  const shapes = infos.map(({ shape }) => shape.map((size) => (typeof size === 'number' ? size : 1)));
  const bytes = infos.map(({ dtype }, index) => (bytesPerElement(dtype) ?? 8) * elementCount(shapes[index] ?? []));
  if (bytes.reduce((sum, one) => sum + one, 0) > MOST_BYTES) return undefined;
  return Object.fromEntries(infos.map(({ name, dtype }, index) => [name, zero(dtype, shapes[index] ?? [])]));
}

function zero(dtype: Tensor['dtype'], shape: readonly number[]): Tensor {
  const count = elementCount(shape);
  const data = dtype === 'string' ? Array<string>(count).fill('') : new ARRAYS[dtype](count);
  return { dtype, shape, data } as Tensor;
}

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
} as const;
