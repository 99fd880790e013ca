// `@splitlearn/comm/model`: what a module needs that holds a model, and no more. All of it is in `@splitlearn/comm` as
// well; but a WorkerExecutor's thread that imports that waits for gRPC, which it does not use.
export type { JsonValue, TensorInfo } from './compute-function.js';
export { CommError, type CommErrorCode, type CommErrorOptions } from './errors.js';
export { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from './half.js';
export type { Model, ModelCall } from './model.js';
export {
  assertTensor,
  bytesPerElement,
  type DType,
  elementCount,
  isDType,
  type Tensor,
  type TensorData,
  type TensorDataByDType,
  type TensorLike,
  type Tensors,
  tensor,
} from './tensor.js';
export { markMovable } from './transfer.js';
