import { AsyncModelComputeFunction, type ComputeFunction, WorkerExecutor } from '@splitlearn/comm';
import type { EngineOptions } from '../engines/engine.js';

/** What computes a model. */
export type EngineName = 'onnx' | 'transformers' | 'module';

/** What a model's thread is given. */
export interface RuntimeOptions extends EngineOptions {
  readonly engine: EngineName;
  /** How many requests may wait for the one that runs. */
  readonly maxQueue: number;
}

/**
 * A model ready to be served: a bounded queue in front of a thread of the model's own, because inference must not run
 * on an event loop that serves (`onnxruntime-node` computes synchronously,
 * https://github.com/microsoft/onnxruntime/issues/19611).
 */
export function createModelRuntime({ maxQueue, ...data }: RuntimeOptions): ComputeFunction {
  // ONNX Runtime's builds since 1.29 tell Microsoft which models run here, unless this is set before they are loaded; what
  // a thread sets in its own process.env they do not see (https://github.com/microsoft/onnxruntime/pull/27379).
  process.env.ORT_DISABLE_TELEMETRY ??= '1';
  return new AsyncModelComputeFunction({
    model: new URL('./engine-thread.js', import.meta.url),
    executor: new WorkerExecutor({ threads: 1, maxQueue, data }),
  });
}
