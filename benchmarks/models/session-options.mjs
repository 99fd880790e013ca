// How ONNX Runtime is set up where there is no manager to do it: as the manager does for `threads: 1`.
export const SESSION_OPTIONS = {
  executionProviders: ['cpu'],
  executionMode: 'sequential',
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
};
