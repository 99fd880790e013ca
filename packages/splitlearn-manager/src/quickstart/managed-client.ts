import { randomUUID } from 'node:crypto';
import {
  type CallOptions,
  CommError,
  type ComputeOptions,
  GRPCComputeClient,
  type GRPCComputeClientOptions,
  type HealthStatus,
  type JsonValue,
  type ModelInfo,
  type Tensor,
  type Tensors,
  tensor,
} from '@splitlearn/comm';
import { withTraceContext } from '../monitoring/tracing.js';

/** How text is generated. What is left out is as the model's server has it by default. */
export interface GenerateOptions extends CallOptions {
  /** Which model is meant. Default: the server's only one. */
  readonly model?: string;
  /** How many tokens to generate at the most. Ends earlier at the end of the model's context. */
  readonly maxNewTokens?: number;
  /** Above 0 samples, the higher the wilder; 0 always takes the likeliest token (greedy). */
  readonly temperature?: number;
  /** Samples from the that many likeliest tokens only; 0 for all. */
  readonly topK?: number;
  /** Samples from the likeliest tokens that together have this probability only; 1 for all. */
  readonly topP?: number;
  /** Above 1 makes what has been said already less likely; 1 for no difference. */
  readonly repetitionPenalty?: number;
  /** The same seed gives the same text. Default: a new one each time. */
  readonly seed?: number;
  /** Ends the text before the first of these. */
  readonly stop?: string | readonly string[];
}

/** Why a text ended: the model or a stop string ended it, or its length did. */
export type FinishReason = 'stop' | 'length';

/** One token of a text that is being generated. */
export interface GeneratedPiece {
  /** What this token adds to the text; empty while a character or a stop string may be incomplete. */
  readonly text: string;
  readonly tokenId: number;
  /** On the last piece: why the text ended. */
  readonly finishReason?: FinishReason;
}

/** A whole generated text. */
export interface GeneratedText {
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly finishReason: FinishReason;
}

/**
 * Talks to a `ManagedServer`: text in, text out, or tensors. Errors are `CommError`s; the manager's own code, such as
 * `MODEL_NOT_FOUND`, is their `reason`.
 *
 * Each client has a name of its own, the metadata `splitlearn-client`, by which a server is fair between clients and a `sticky`
 * route keeps them together. What a call says in its metadata comes first: another `splitlearn-client`, a
 * `splitlearn-session`, or a `splitlearn-priority`, which is `high`, `normal` (the default) or `low`.
 *
 * @example
 * const client = new ManagedClient('127.0.0.1:50051');
 * for await (const piece of client.generate('Once upon a time')) process.stdout.write(piece.text);
 */
export class ManagedClient {
  readonly #client: GRPCComputeClient;
  readonly #name = { 'splitlearn-client': randomUUID() };

  /** @param address - `host:port`, or `unix:/absolute/path` for a unix socket. */
  constructor(address: string, options?: GRPCComputeClientOptions) {
    this.#client = new GRPCComputeClient(address, options);
  }

  /** Continues a prompt and answers with the whole text. */
  infer(prompt: string, options?: GenerateOptions): Promise<GeneratedText>;
  /** Runs a model that takes tensors. */
  infer(inputs: Tensors, options?: ComputeOptions): Promise<Tensors>;
  async infer(
    input: string | Tensors,
    options: GenerateOptions | ComputeOptions = {},
  ): Promise<GeneratedText | Tensors> {
    if (typeof input !== 'string') return this.#client.compute(input, this.#named(options as ComputeOptions));
    const call = this.#named(toComputeOptions(options as GenerateOptions));
    const outputs = await this.#client.compute({ text: tensor([input]) }, call);
    return {
      text: firstString(output(outputs, 'text')),
      tokenIds: Array.from(output(outputs, 'token_ids').data, Number),
      finishReason: firstString(output(outputs, 'finish_reason')) as FinishReason,
    };
  }

  /** Continues a prompt token by token. Leaving the loop ends the generation. */
  async *generate(prompt: string, options: GenerateOptions = {}): AsyncGenerator<GeneratedPiece, void> {
    const call = this.#named(toComputeOptions(options));
    const responses = this.#client.stream([{ inputs: { text: tensor([prompt]) } }], call);
    for await (const { outputs } of responses) {
      const { finish_reason: finishReason } = outputs;
      yield {
        text: firstString(output(outputs, 'text')),
        tokenId: Number(output(outputs, 'token_id').data[0]),
        ...(finishReason && { finishReason: firstString(finishReason) as FinishReason }),
      };
    }
  }

  /** Runs a model that takes one tensor, `input`, and gives one. @see GRPCComputeClient.compute */
  compute(input: Tensor, options?: ComputeOptions): Promise<Tensor>;
  compute(inputs: Tensors, options?: ComputeOptions): Promise<Tensors>;
  compute(input: Tensor | Tensors, options?: ComputeOptions): Promise<Tensor | Tensors> {
    return this.#client.compute(input as Tensors, this.#named(options));
  }

  /** Like `compute`, and says where the time went. @see GRPCComputeClient.computeWithTiming */
  computeWithTiming(inputs: Tensors, options?: ComputeOptions) {
    return this.#client.computeWithTiming(inputs, this.#named(options));
  }

  /** The models that the server has. */
  async listModels(options?: CallOptions): Promise<readonly ModelInfo[]> {
    return (await this.#client.getServiceInfo(options)).models;
  }

  /** Whether the server serves. */
  healthCheck(): Promise<HealthStatus> {
    return this.#client.healthCheck();
  }

  async close(): Promise<void> {
    await this.#client.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** A call with the client's name, and as a part of the trace that is active where it is made, if one is. */
  #named(options: ComputeOptions = {}): ComputeOptions {
    const metadata = options.metadata ? { ...this.#name, ...options.metadata } : this.#name;
    return { ...options, metadata: withTraceContext(metadata) };
  }
}

function toComputeOptions(options: GenerateOptions): ComputeOptions {
  const { maxNewTokens, temperature, topK, topP, repetitionPenalty, seed, stop, ...call } = options;
  const given = { maxNewTokens, temperature, topK, topP, repetitionPenalty, seed, stop };
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  return { ...call, parameters: Object.fromEntries(set) as Record<string, JsonValue> };
}

function output(outputs: Tensors, name: string): Tensor {
  const found = outputs[name];
  if (found) return found;
  throw new CommError(
    'FAILED_PRECONDITION',
    `the answer has no '${name}', so this model does not continue texts; give it tensors, as in infer({ … })`,
  );
}

function firstString(value: Tensor): string {
  return String(value.data[0] ?? '');
}
