import type { Model } from '@splitlearn/comm/model';

/** What an engine needs to know to load a model. It crosses to the model's thread, so it is plain data. */
export interface EngineOptions {
  readonly modelId: string;
  /** Absolute path of the model's folder. */
  readonly folder: string;
  /** Absolute path of the ONNX file. */
  readonly file: string;
  /** How many threads one run may compute with. */
  readonly threads: number;
  /** The task of the engine `transformers`; absent where the model's architecture says it. */
  readonly task?: string;
  /** What to compute on: `cpu`, `cuda:0` and the like. Never `auto`: that has been decided by now. Default `cpu`. */
  readonly device?: string;
  /** Whether to run the model once while it is loaded. Default true. */
  readonly warmup?: boolean;
}

/**
 * Loads a model and returns it ready to run. An engine runs in a thread where nothing else does, one run at a time.
 * It checks everything it is given before it runs, and throws `ManagerError`s.
 */
export type Engine = (options: EngineOptions) => Promise<Model>;
