import type { InferenceSession } from 'onnxruntime-node';
import type { EngineOptions } from './engine.js';

/** How every engine sets ONNX Runtime up for a model that may compute with so many threads, on that device. */
export function sessionOptions({ threads, device = 'cpu' }: Pick<EngineOptions, 'threads' | 'device'>) {
  return {
    executionProviders: executionProviders(device),
    executionMode: 'sequential',
    // DirectML cannot plan memory ahead, and refuses to begin where it is asked to
    // (https://onnxruntime.ai/docs/execution-providers/DirectML-ExecutionProvider.html#configuration-options).
    ...(device === 'dml' && { enableMemPattern: false }),
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    // A thread that spins keeps its core busy for milliseconds after each run. With 5 ms between runs on two threads
    // that took five times the processor time of the runs, and a neighbour on the core came down to half its speed.
    // Without spinning a small run on two threads of an idle machine takes 15-50 % longer.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
    // Fatal errors only: whatever fails is thrown as well, and a caller must not be able to fill the log.
    logSeverityLevel: 4,
  } satisfies InferenceSession.SessionOptions;
}

/**
 * What ONNX Runtime calls a device. Operators that a device has no kernel for run on the CPU by themselves; a device
 * that is not there is an error, never the CPU in its place.
 */
export function executionProviders(device: string): InferenceSession.ExecutionProviderConfig[] {
  const [name = 'cpu', index] = device.split(':');
  return [
    index === undefined ? name : ({ name, deviceId: Number(index) } as InferenceSession.CudaExecutionProviderOption),
  ];
}
