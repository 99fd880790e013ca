import {
  GenerationConfig,
  LogitsProcessor,
  LogitsProcessorList,
  type PreTrainedModel,
  PretrainedConfig,
  random,
  StoppingCriteria,
  Tensor,
} from '@xenova/transformers';
import { ManagerError } from '../../errors.js';
import { isOutOfMemory } from '../onnx-errors.js';
import type { GenerationOptions } from './generation-options.js';
import { sampleToken } from './sample-token.js';
import type { TextPiece, TextPieces } from './text-pieces.js';

/** What is generated, and how. */
export interface Generation {
  /** The ids to continue, at least one. With `maxNewTokens` they must fit into the model's context. */
  readonly prompt: readonly number[];
  readonly options: GenerationOptions;
  /** Makes the pieces that are yielded. */
  readonly pieces: TextPieces;
  readonly signal: AbortSignal;
}

/**
 * Continues a prompt and yields a piece for every token as soon as there is one. The model runs on while a piece is
 * looked at; a consumer that stops early, like an aborted signal, ends it within one token.
 *
 * @throws The signal's `reason` when it is aborted; ManagerError `INSUFFICIENT_MEMORY` when memory ran out, and
 * `INFERENCE_FAILED` when the runtime fails otherwise.
 */
export async function* generatePieces(model: PreTrainedModel, generation: Generation): AsyncGenerator<TextPiece> {
  const { prompt, options, pieces, signal } = generation;
  const ready: TextPiece[] = [];
  let wake = () => {};
  let abandoned = false;
  let running = true;

  const visit = (token: number): boolean => {
    const piece = pieces.push(token);
    ready.push(piece);
    wake();
    return abandoned || signal.aborted || piece.finishReason !== undefined;
  };
  const finished = model
    .generate({
      inputs: new Tensor('int64', BigInt64Array.from(prompt, BigInt), [1, prompt.length]),
      generation_config: neutralConfig(),
      // The pieces end the text; this is only to keep the library's own limit of 20 tokens out of the way.
      max_new_tokens: Infinity,
      repetition_penalty: options.repetitionPenalty,
      logits_processor: logitsProcessors(options),
      stopping_criteria: new EveryToken(visit),
    })
    .catch((cause: unknown) => {
      if (isOutOfMemory(cause)) {
        throw new ManagerError('INSUFFICIENT_MEMORY', `The model ran out of memory: ${String(cause)}`, { cause });
      }
      throw new ManagerError('INFERENCE_FAILED', `The model cannot be run on this text: ${String(cause)}`, { cause });
    })
    .finally(() => {
      running = false;
      wake();
    });
  // It is awaited below. But a consumer may be slow to ask for the next piece, and must not find the process ended.
  finished.catch(() => {});

  try {
    while (running || ready.length > 0) {
      signal.throwIfAborted();
      const piece = ready.shift();
      if (piece) yield piece;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
    signal.throwIfAborted();
  } finally {
    abandoned = true;
    await finished;
  }
}

/**
 * The library's defaults, which are greedy. Without it the library would take them from the model's config.json and
 * generation_config.json, where some models ask for sampling, a length or a penalty.
 */
function neutralConfig(): GenerationConfig {
  return new GenerationConfig(new PretrainedConfig({}));
}

function logitsProcessors(options: GenerationOptions): LogitsProcessorList {
  const processors = new LogitsProcessorList();
  if (options.temperature > 0) processors.push(new Sampling(options));
  return processors;
}

/**
 * Draws the token and leaves no other for the library's greedy choice. The library's own sampling knows no top-p, and
 * its top-k runs in a second ONNX session with threads of its own, which no thread budget knows of.
 */
class Sampling extends LogitsProcessor {
  readonly #options: GenerationOptions;
  readonly #random: () => number;

  constructor(options: GenerationOptions) {
    super();
    this.#options = options;
    const generator = new random.Random(options.seed);
    this.#random = () => generator.random();
  }

  override _call(_tokens: bigint[][], logits: Tensor): Tensor {
    const scores = logits.data as Float32Array;
    const token = sampleToken(scores, this.#options, this.#random);
    scores.fill(-Infinity);
    scores[token] = 0;
    return logits;
  }
}

/** Calls a function with every new token, and stops when it returns true. */
class EveryToken extends StoppingCriteria {
  readonly #visit: (token: number) => boolean;

  constructor(visit: (token: number) => boolean) {
    super();
    this.#visit = visit;
  }

  override _call(tokens: number[][]): boolean[] {
    // Declared as numbers, they are bigints in truth.
    return tokens.map((sequence) => this.#visit(Number(sequence.at(-1))));
  }
}
