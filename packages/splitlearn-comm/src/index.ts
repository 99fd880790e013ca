// For everyone: tensors, compute functions, server and client.
export type { ComputeOptions, CallOptions } from './client/call-options.js';
export type { Balancing } from './client/balancer.js';
export type { GRPCComputeClientOptions } from './client/client-options.js';
export { type CallTiming, GRPCComputeClient } from './client/grpc-compute-client.js';
export type { HealthStatus } from './client/health.js';
export {
  ExponentialBackoff,
  type ExponentialBackoffOptions,
  FixedDelay,
  type FixedDelayOptions,
  NoRetry,
  type RetryStrategy,
} from './client/retry.js';
export {
  CompressedTensorCodec,
  type CompressedTensor,
  type CompressedTensorCodecOptions,
  supportedEncodings,
  type TensorEncoding,
} from './codec/compression.js';
export type { WireServiceInfo } from './codec/service-info.js';
export type { ServerTiming } from './codec/wire.js';
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
export { CommError, type CommErrorCode, type CommErrorOptions } from './errors.js';
export { SerialExecutor, type SerialExecutorOptions } from './executors/serial-executor.js';
export { WorkerExecutor, type WorkerExecutorOptions } from './executors/worker-executor.js';
export { AsyncChainComputeFunction } from './functions/chain.js';
export { AsyncLambdaComputeFunction, type Lambda } from './functions/lambda.js';
export { AsyncModelComputeFunction, type AsyncModelComputeFunctionOptions } from './functions/model.js';
export { RemoteComputeFunction } from './functions/remote.js';
export { bfloat16ToFloat32, float16ToFloat32, float32ToBfloat16, float32ToFloat16 } from './half.js';
export type { ClientTlsOptions, Pem, ServerTlsOptions } from './grpc/tls.js';
export type { Logger } from './logger.js';
export type { Executed, Executor, Model, ModelCall } from './model.js';
export {
  AsyncGRPCComputeServer,
  type AsyncGRPCComputeServerOptions,
  type ServerLimits,
  type StopOptions,
} from './server/async-grpc-compute-server.js';
export type { AuthOptions, AuthorizedCall, AuthorizedMethod } from './server/authorization.js';
export type { ConnectionLimits, ConnectionStatistics } from './server/connections.js';
export type { ServiceHealth } from './server/standard-services.js';
export type { CallStatistics } from './statistics.js';
export {
  type DType,
  type Tensor,
  type TensorData,
  type TensorDataByDType,
  type TensorLike,
  type Tensors,
  tensor,
} from './tensor.js';

// For libraries that build on this one.
export { startWith } from './async-iterables.js';
export { type EncodedTensor, TensorCodec } from './codec/tensor-codec.js';
export { streamByCompute } from './compute-function.js';
export { errorFromPlain, errorToPlain, type PlainError } from './errors.js';
export {
  AsyncComputeServicer,
  type AsyncComputeServicerOptions,
  type ExchangeLimitOptions,
} from './server/async-compute-servicer.js';
export { LatencyHistogram, type LatencySummary } from './statistics.js';
export { assertTensor, bytesPerElement, elementCount, isDType } from './tensor.js';
export { markMovable } from './transfer.js';
