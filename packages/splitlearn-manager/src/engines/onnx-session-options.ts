import type { InferenceSession } from 'onnxruntime-node';

/** How every engine sets ONNX Runtime up for a model that may compute with `threads` threads. */
export function sessionOptions(threads: number) {
  return {
    executionMode: 'sequential',
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    // A thread that spins keeps its core busy for milliseconds after each run. With 5 ms between runs on two threads
    // that took five times the processor time of the runs, and a neighbour on the core came down to half its speed.
    // Without spinning a small run on two threads of an idle machine takes 15-50 % longer.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
    // Fatal errors only: whatever fails is thrown as well, and a caller must not be able to fill the log.
    logSeverityLevel: 4,
  } as const satisfies InferenceSession.SessionOptions;
}
