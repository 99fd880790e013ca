import type { Model } from '@splitlearn/comm';

/** What an engine needs to know to load a model. It crosses to the model's thread, so it is plain data. */
export interface EngineOptions {
  readonly modelId: string;
  /** Absolute path of the model's folder. */
  readonly folder: string;
  /** Absolute path of the ONNX file. */
  readonly file: string;
  /** How many threads one run may compute with. */
  readonly threads: number;
}

/**
 * Loads a model and returns it ready to run. An engine runs in a thread where nothing else does, one run at a time.
 * It checks everything it is given before it runs, and throws `ManagerError`s.
 */
export type Engine = (options: EngineOptions) => Promise<Model>;
