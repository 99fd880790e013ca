// For everyone: tensors, compute functions, server and client.
export { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from './half.js';
export { tensor, type DType, type Tensor, type TensorData, type TensorDataByDType, type TensorLike, type Tensors } from './tensor.js';
export { CommError, type CommErrorCode, type CommErrorOptions } from './errors.js';
export {
  callContext,
  type CallContext,
  type ComputeFunction,
  type ComputeRequest,
  type ComputeResponse,
  type ComputeTiming,
  type JsonValue,
  type LocalCallOptions,
  type ModelInfo,
  type ServiceInfo,
  type TensorInfo,
} from './compute-function.js';
export type { Executed, Executor, Model, ModelCall } from './model.js';

// For libraries that build on this one.
export { errorFromPlain, errorToPlain, type PlainError } from './errors.js';
export { assertTensor, bytesPerElement, elementCount, isDType } from './tensor.js';
