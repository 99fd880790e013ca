import type { PreTrainedModel, PreTrainedTokenizer, PretrainedConfig } from '@xenova/transformers';

/** What a model's files say about it, as far as generating text needs it. */
export interface ModelFacts {
  /** The model's family, such as `gpt2`. */
  readonly architecture: string;
  /** How many tokens the prompt and the text may have together; infinite where the model has no limit. */
  readonly contextLength: number;
  /** The tokens with which the model ends a text. */
  readonly endOfText: ReadonlySet<number>;
  /** The token that stands for an empty prompt, where there is one. */
  readonly startOfText: number | undefined;
  /** The most characters that one token stands for. */
  readonly longestToken: number;
}

/** What the families of models call their context length in config.json. */
const CONTEXT_LENGTH_KEYS = ['n_positions', 'max_position_embeddings', 'n_ctx', 'max_seq_len', 'seq_length'];

/**
 * Reads them. The context length is only ever taken from config.json, which the model's positions are made by:
 * tokenizers often claim another one, or 10^30.
 */
export function readModelFacts(
  config: PretrainedConfig,
  model: PreTrainedModel,
  tokenizer: PreTrainedTokenizer,
): ModelFacts {
  const settings = config as unknown as Readonly<Record<string, unknown>>;
  const endOfText = model.generation_config?.eos_token_id ?? settings.eos_token_id ?? tokenizer.eos_token_id;
  return {
    architecture: config.model_type ?? 'unknown',
    contextLength: CONTEXT_LENGTH_KEYS.map((key) => settings[key]).find(isNumber) ?? Infinity,
    endOfText: new Set([endOfText].flat().filter(isNumber)),
    startOfText: [tokenizer.bos_token_id, settings.bos_token_id].find(isNumber),
    longestToken: Array.from(tokenizer.get_vocab().keys()).reduce(
      (longest, { length }) => Math.max(longest, length),
      1,
    ),
  };
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number';
}
