import { type Model, type ModelCall, type Tensor, type Tensors, tensor } from '@splitlearn/comm/model';
import type { PreTrainedModel, PreTrainedTokenizer } from '@xenova/transformers';
import { ManagerError } from '../../errors.js';
import { decoderOf } from './decoder.js';
import { generatePieces } from './generate-pieces.js';
import { parseGenerationOptions } from './generation-options.js';
import type { ModelFacts } from './model-facts.js';
import { type TextPiece, TextPieces } from './text-pieces.js';

/** The outputs of a run, in the order of {@link TextGenerationModel.info}. */
const RUN_OUTPUTS = ['text', 'token_ids', 'finish_reason', 'prompt_tokens'];

/** The outputs of a stream. */
const STREAM_OUTPUTS = ['text', 'token_id', 'finish_reason', 'prompt_tokens'];

/** A text that is being generated. */
interface Answer {
  readonly promptTokens: number;
  readonly pieces: AsyncIterable<TextPiece>;
}

/**
 * A language model that continues a text. It takes the string tensor `text` of shape [] or [1] and the parameters of
 * `GenerationOptions`.
 *
 * {@link run} returns, each of shape [1] but for the second:
 * - `text` (string): what the model wrote, without the prompt and without the token that ended it;
 * - `token_ids` (int64, [n]): every token that was generated, also those that ended the text and are not in it;
 * - `finish_reason` (string): `stop` when the model or a stop string ended the text, `length` when `maxNewTokens` or
 *   the model's context did;
 * - `prompt_tokens` (int64): how many tokens the prompt has.
 *
 * {@link stream} yields as many pieces as there are tokens, each with `text` (string, [1]) and `token_id` (int64, [1]).
 * The last has `finish_reason` and `prompt_tokens` as well. The texts of all pieces add up to the text of a run; a
 * piece has the text that became certain with its token, so it is empty while a character or what may become a stop
 * string is not complete, and the last piece has all that was held back until then.
 *
 * Special tokens are not part of the text. An empty prompt is the model's token for the beginning of a text.
 */
export class TextGenerationModel implements Model {
  readonly info: NonNullable<Model['info']>;
  readonly #modelId: string;
  readonly #model: PreTrainedModel;
  readonly #tokenizer: PreTrainedTokenizer;
  readonly #facts: ModelFacts;

  constructor(modelId: string, model: PreTrainedModel, tokenizer: PreTrainedTokenizer, facts: ModelFacts) {
    this.#modelId = modelId;
    this.#model = model;
    this.#tokenizer = tokenizer;
    this.#facts = facts;
    this.info = {
      inputs: [{ name: 'text', dtype: 'string', shape: [1] }],
      outputs: [
        { name: 'text', dtype: 'string', shape: [1] },
        { name: 'token_ids', dtype: 'int64', shape: ['new_tokens'] },
        { name: 'finish_reason', dtype: 'string', shape: [1] },
        { name: 'prompt_tokens', dtype: 'int64', shape: [1] },
      ],
      attributes: {
        task: 'text-generation',
        architecture: facts.architecture,
        contextLength: Number.isFinite(facts.contextLength) ? String(facts.contextLength) : 'unlimited',
      },
    };
  }

  /**
   * Generates the whole text.
   *
   * @throws ManagerError `INVALID_INPUT` for inputs, parameters and names of outputs that the model does not have,
   * `CONTEXT_LENGTH_EXCEEDED` for a prompt that leaves no room in the model's context, `INFERENCE_FAILED` when the
   * runtime fails; and the signal's `reason`, within one token, when it is aborted.
   */
  async run(inputs: Tensors, call: ModelCall): Promise<Tensors> {
    assertOutputNames(call.outputs, RUN_OUTPUTS);
    const { pieces, promptTokens } = this.#answer(inputs, call);
    const all: TextPiece[] = [];
    for await (const piece of pieces) all.push(piece);
    return select(call.outputs, {
      text: string(all.map(({ text }) => text).join('')),
      token_ids: int64(all.map(({ token }) => token)),
      finish_reason: string(all.at(-1)?.finishReason ?? 'length'),
      prompt_tokens: int64([promptTokens]),
    });
  }

  /**
   * Generates the text token by token.
   *
   * @throws As {@link run}.
   */
  async *stream(inputs: Tensors, call: ModelCall): AsyncGenerator<Tensors> {
    assertOutputNames(call.outputs, STREAM_OUTPUTS);
    const { pieces, promptTokens } = this.#answer(inputs, call);
    for await (const { token, text, finishReason } of pieces) {
      yield select(call.outputs, {
        text: string(text),
        token_id: int64([token]),
        ...(finishReason && { finish_reason: string(finishReason), prompt_tokens: int64([promptTokens]) }),
      });
    }
  }

  /** Generates one token, so that the first request does not pay for what only a first run does. */
  async warmUp(): Promise<void> {
    const call = {
      parameters: { maxNewTokens: 1 },
      outputs: [],
      signal: new AbortController().signal,
      requestId: 'warm-up',
    };
    // A text that the model cannot continue is no fault, and says nothing of the requests to come.
    await this.run({ text: tensor('a') }, call).catch(() => {});
  }

  /** Releases the ONNX session. */
  async dispose(): Promise<void> {
    await this.#model.dispose();
  }

  /** Checks everything before it begins. */
  #answer(inputs: Tensors, { parameters, signal }: ModelCall): Answer {
    signal.throwIfAborted();
    const options = parseGenerationOptions(parameters);
    const prompt = this.#encode(promptText(inputs));
    const pieces = new TextPieces({
      decode: decoderOf(this.#tokenizer),
      prompt,
      maxNewTokens: Math.min(options.maxNewTokens, this.#facts.contextLength - prompt.length),
      stop: options.stop,
      endOfText: this.#facts.endOfText,
    });
    return { promptTokens: prompt.length, pieces: generatePieces(this.#model, { prompt, options, pieces, signal }) };
  }

  /** The prompt's tokens: at least one, and few enough for the context to have room for one more. */
  #encode(text: string): readonly number[] {
    const { contextLength, longestToken, startOfText } = this.#facts;
    // A text of this length has too many tokens whatever they are; counting them would only take long.
    const fewest = Math.ceil(text.length / longestToken);
    if (fewest >= contextLength) throw this.#tooLong(`at least ${fewest}`);
    const tokens = this.#tokenizer.encode(text);
    if (tokens.length >= contextLength) throw this.#tooLong(String(tokens.length));
    if (tokens.length > 0) return tokens;
    if (startOfText !== undefined) return [startOfText];
    throw new ManagerError(
      'INVALID_INPUT',
      `The prompt is empty, and model '${this.#modelId}' has no token that begins a text. Give it text to continue.`,
    );
  }

  #tooLong(count: string): ManagerError {
    const { contextLength } = this.#facts;
    return new ManagerError(
      'CONTEXT_LENGTH_EXCEEDED',
      `The prompt has ${count} tokens, but the context of model '${this.#modelId}' is ${contextLength} tokens for ` +
        `prompt and answer together, so a prompt may have ${contextLength - 1}. Shorten it, for example by leaving ` +
        `out its beginning, or use a model with a longer context.`,
    );
  }
}

function promptText(inputs: Tensors): string {
  const wanted = `This model takes one input, the string tensor 'text' with one element, of shape [] or [1].`;
  const { text, ...others } = inputs;
  const [other] = Object.keys(others);
  if (other !== undefined) throw new ManagerError('INVALID_INPUT', `There is no input '${other}'. ${wanted}`);
  if (!text) throw new ManagerError('INVALID_INPUT', `The input 'text' is missing. ${wanted}`);
  const { dtype, shape, data } = text;
  const [prompt] = data;
  if (dtype !== 'string' || typeof prompt !== 'string' || shape.length > 1 || data.length !== 1) {
    throw new ManagerError('INVALID_INPUT', `The input 'text' is of dtype ${dtype} and shape [${shape}]. ${wanted}`);
  }
  return prompt;
}

function assertOutputNames(wanted: readonly string[], known: readonly string[]): void {
  const unknown = wanted.find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw new ManagerError('INVALID_INPUT', `There is no output '${unknown}'. The outputs are '${known.join(`', '`)}'.`);
}

/** The outputs that are wanted; all where none is named. */
function select(wanted: readonly string[], outputs: Tensors): Tensors {
  if (wanted.length === 0) return outputs;
  return Object.fromEntries(Object.entries(outputs).filter(([name]) => wanted.includes(name)));
}

function string(value: string): Tensor<'string'> {
  return tensor([value]);
}

function int64(values: readonly number[]): Tensor<'int64'> {
  return tensor(BigInt64Array.from(values, BigInt));
}
