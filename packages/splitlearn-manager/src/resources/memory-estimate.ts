/** What is known of a model before it is loaded. */
export interface MemoryEstimateOptions {
  /** The size of the files with the weights, in bytes. */
  readonly fileBytes: number;
  /** The part of `fileBytes` that is external data, in files beside the ONNX file, in bytes. Default 0. */
  readonly externalDataBytes?: number;
  readonly engine: 'onnx' | 'transformers' | 'module';
  readonly isolation: 'process' | 'thread';
  /** The KV cache of one conversation, in bytes: see {@link kvCacheBytes}. Default 0. */
  readonly kvCacheBytes?: number;
  /** How many times the model is loaded. Default 1. */
  readonly instances?: number;
}

/** What a model is thought to take while it is loaded and run, in bytes. All instances together. */
export interface MemoryEstimate {
  /** The sum of the parts. */
  readonly memoryBytes: number;
  readonly parts: {
    readonly weights: number;
    /** Node.js, ONNX Runtime and the engine. */
    readonly runtime: number;
    /** Comes only when the model is used: what `growthBytes` of a reservation is for. */
    readonly cache: number;
  };
}

const MIB = 2 ** 20;

/**
 * How often weights that are inside the ONNX file are in memory while a model is loaded.
 *
 * Measured with onnxruntime-node 1.30 on Linux x64 (Node.js 20, two cores), float32: resident memory that comes on top
 * of the process without a model, divided by the size of the weights. Where it is not the same each time, the range.
 *
 * | model, size of its weights    | most while it was loaded | after that, and after runs |
 * |-------------------------------|--------------------------|----------------------------|
 * | one embedding, 512 MiB        | 2.0                      | 1.0                        |
 * | 32 matrices, 512 MiB          | 1.1 to 1.5               | the same                   |
 * | 8 matrices, 128 MiB           | 1.7                      | the same                   |
 * | as external data: 32 matrices | 1.1                      | 1.0                        |
 * | as external data: embedding   | 0.05                     | 0.05, more with each row   |
 *
 * ONNX Runtime reads the whole file and copies the weights out of it; of those that are multiplied with it keeps a copy
 * in the order in which the processor wants them, and what it freed it does not always give back.
 */
const WEIGHTS_FACTOR = 2;

/** How often external data is: it is mapped into memory, and what has been copied out of it is let go. Measured as above. */
const EXTERNAL_DATA_FACTOR = 1.1;

/**
 * What a model takes beside its weights, in MiB. Resident memory, measured as above with models of less than 5 MB loaded by
 * this package: a process 101 to 107 (`onnx`), 141 (`transformers`) and 71 (`module`), of which 45 to 70 are pages of
 * programs that such processes share; a thread 40, 76 and 11 more than the server had before.
 */
const RUNTIME_MIB = {
  process: { onnx: 110, transformers: 145, module: 75 },
  thread: { onnx: 45, transformers: 80, module: 15 },
} as const;

/** A step reads the cache of the steps before and writes one that is a token longer: for a moment there are two. */
const CACHE_FACTOR = 2;

/**
 * Estimates what a model will take, so that it can be reserved before it is loaded. Meant to be rather too much than
 * too little: what the model turned out to take replaces it as soon as it is known.
 */
export function estimateMemory(options: MemoryEstimateOptions): MemoryEstimate {
  const { fileBytes, externalDataBytes = 0, engine, isolation, instances = 1 } = options;
  const insideBytes = Math.max(0, fileBytes - externalDataBytes);
  const parts = {
    weights: Math.ceil(WEIGHTS_FACTOR * insideBytes + EXTERNAL_DATA_FACTOR * externalDataBytes) * instances,
    runtime: RUNTIME_MIB[isolation][engine] * MIB * instances,
    cache: CACHE_FACTOR * (options.kvCacheBytes ?? 0) * instances,
  };
  return { memoryBytes: parts.weights + parts.runtime + parts.cache, parts };
}

/** The numbers of a text model's configuration that its KV cache depends on. */
export interface KvCacheShape {
  readonly layers: number;
  /** Heads of keys and values (`num_key_value_heads`), which are fewer than those of queries in many models. */
  readonly heads: number;
  /** Values per head: in most models the hidden size divided by the heads of queries. */
  readonly headSize: number;
  /** Tokens of prompt and answer together. */
  readonly contextTokens: number;
  /** 4 for float32, 2 for float16. Default 4. */
  readonly bytesPerValue?: number;
}

/** The size of the KV cache of one conversation of `contextTokens`, in bytes: one key and one value each. */
export function kvCacheBytes({ layers, heads, headSize, contextTokens, bytesPerValue = 4 }: KvCacheShape): number {
  return 2 * layers * heads * headSize * contextTokens * bytesPerValue;
}
