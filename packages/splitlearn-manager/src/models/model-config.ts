import { z } from 'zod';
import { parseConfig } from '../config.js';
import { BatchingConfig } from '../runtime/batching-config.js';

/** What to load, and how to run it. */
export const ModelConfig = z.strictObject({
  /** The name that requests use. Default: the source, or for a path its last part without `.onnx`. */
  modelId: z.string().min(1).max(200).optional(),
  /**
   * Where the model is from: a catalogue name (`tiny-gpt2`, `gpt2`), a repository of the Hugging Face hub (`org/name`), or
   * the path of a file or of a folder with a model in it. With `address`: the model's name there.
   */
  source: z.string().min(1),
  /** Of a repository of the hub: a branch, a tag or a commit. Default `main`. */
  revision: z.string().min(1).optional(),
  /** The file inside the source's folder. Default: `onnx/model.onnx` or its like of `dtype`, or the only one there is. */
  file: z.string().min(1).optional(),
  /** The type of the weights, where the source has files of several types. Default `fp32`. */
  dtype: z.enum(['fp32', 'fp16', 'q8', 'int8', 'uint8', 'q4', 'q4f16', 'bnb4']).optional(),
  /**
   * What computes: `onnx` takes and gives the file's own named tensors, `transformers` runs a task of transformers.js,
   * `module` runs a JavaScript file that exports `load`. Default: `module` for a JavaScript file, `transformers` for a
   * folder with a tokenizer, else `onnx`.
   */
  engine: z.enum(['onnx', 'transformers', 'module']).optional(),
  /** The task of the engine `transformers`, by its name in transformers.js. Default: by the model's architecture. */
  task: z.string().min(1).optional(),
  /** What to compute on. Default `auto`: the best that the machine and the engine have. */
  device: z
    .string()
    .regex(/^(auto|cpu|cuda(:\d+)?|coreml|dml|webgpu)$/, 'must be auto, cpu, cuda, cuda:N, coreml, dml or webgpu')
    .default('auto'),
  /** The address of a server that has the model, such as `gpu-box:50051`: it runs there instead of here. */
  address: z.string().min(1).optional(),
  /**
   * Where the model runs: in a process of its own, which a crash cannot leave and which gives back every byte when the
   * model is unloaded, or in a thread of the server's process, which answers a little sooner.
   * Default `process`; on Windows `thread`.
   */
  isolation: z.enum(['process', 'thread']).default(process.platform === 'win32' ? 'thread' : 'process'),
  /** How many threads one run computes with. Default: the model's share of the cores. */
  threads: z.int().min(1).max(256).optional(),
  /** How many times the model is loaded, each with a process or thread of its own; requests go to the least busy. Default 1. */
  instances: z.int().min(1).max(64).default(1),
  /** The most memory that each of its processes may take, in bytes; one that takes more is ended. Default: no limit of its own. */
  maxMemoryBytes: z.int().positive().optional(),
  /** Milliseconds without a request after which the model is unloaded; the next request loads it. Default: never. */
  keepAliveMs: z.int().min(0).optional(),
  /** Never evicted to make room for others, nor unloaded when idle. Default false. */
  pinned: z.boolean().default(false),
  /** Runs the model once before it is READY, so that the first request does not pay for it. Default true. */
  warmup: z.boolean().default(true),
  /** How many requests may wait for the one that runs; past it they fail with `RESOURCE_EXHAUSTED`. Default 256. */
  maxQueue: z.int().min(0).max(1_000_000).default(256),
  /**
   * How requests are put together into one run, for a model of the engines `onnx` or `module` that has a batch
   * dimension. `maxQueue` should be larger than its `maxBatchSize`. Default: each request runs alone.
   */
  batching: BatchingConfig.optional(),
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
