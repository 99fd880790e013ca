import { z } from 'zod';
import { parseConfig } from '../config.js';

/** What to load, and how to run it. */
export const ModelConfig = z.strictObject({
  /** The name that requests use. Default: the source, or for a path its last part without `.onnx`. */
  modelId: z.string().min(1).max(200).optional(),
  /** A catalogue name (`tiny-gpt2`), or the path of an ONNX file or of a folder with a model in it. */
  source: z.string().min(1),
  /** The ONNX file inside the source's folder. Default: `onnx/model.onnx`, `model.onnx`, or the only one there is. */
  file: z.string().min(1).optional(),
  /**
   * What computes: `onnx` takes and gives the file's own named tensors, `transformers` takes and streams text.
   * Default: `transformers` for a folder with a tokenizer, else `onnx`.
   */
  engine: z.enum(['onnx', 'transformers']).optional(),
  /**
   * Where the model runs: in a process of its own, which a crash cannot leave and which gives back every byte when the
   * model is unloaded, or in a thread of the server's process, which answers a little sooner.
   * Default `process`; on Windows `thread`.
   */
  isolation: z.enum(['process', 'thread']).default(process.platform === 'win32' ? 'thread' : 'process'),
  /** How many threads one run computes with. Default: the model's share of the cores. */
  threads: z.int().min(1).max(256).optional(),
  /** How many requests may wait for the one that runs; past it they fail with `RESOURCE_EXHAUSTED`. Default 256. */
  maxQueue: z.int().min(0).max(1_000_000).default(256),
});

/** A model's configuration as it is written: whatever has a default may be left out. */
export type ModelConfig = z.input<typeof ModelConfig>;

/** A model's configuration with all defaults filled in. */
export type ResolvedModelConfig = z.output<typeof ModelConfig>;

/**
 * Checks a configuration. A string stands for `{ source }`.
 *
 * @throws ManagerError `INVALID_CONFIG`, naming the field.
 */
export function parseModelConfig(config: string | ModelConfig): ResolvedModelConfig {
  return parseConfig(ModelConfig, typeof config === 'string' ? { source: config } : config, 'model configuration');
}
