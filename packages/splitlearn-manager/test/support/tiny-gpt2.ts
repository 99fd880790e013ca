import { readFileSync } from 'node:fs';
import { type Tensor, type Tensors, tensor } from '@splitlearn/comm';

interface GoldenCase {
  readonly prompt: string;
  readonly input_ids: readonly number[];
  readonly greedy_ids: readonly number[];
  readonly greedy_text: string;
  readonly last_logits_first16: readonly number[];
}

/** What PyTorch says that the model does. */
export const golden = JSON.parse(
  readFileSync(new URL('../../models/tiny-gpt2/golden.json', import.meta.url), 'utf8'),
) as { readonly new_tokens: number; readonly tolerance: number; readonly cases: readonly GoldenCase[] };

const HEADS = 4;
const HEAD_SIZE = 32;
const LAYERS = [0, 1, 2, 3];

/** A KV cache with nothing in it. */
export function emptyPast(): Tensors {
  const empty = () => tensor(new Float32Array(0), [1, HEADS, 0, HEAD_SIZE]);
  return Object.fromEntries(
    LAYERS.flatMap((layer) => ['key', 'value'].map((part) => [`past_key_values.${layer}.${part}`, empty()])),
  );
}

/** The KV cache that comes out of one step, as it goes into the next. */
export function toPast(outputs: Tensors): Tensors {
  const cache = Object.entries(outputs).filter(([name]) => name.startsWith('present.'));
  return Object.fromEntries(cache.map(([name, value]) => [name.replace('present', 'past_key_values'), value]));
}

/** The inputs for new tokens that follow `pastLength` others, without the cache. */
export function tokenInputs(ids: readonly number[], pastLength: number): Tensors {
  const length = pastLength + ids.length;
  return {
    input_ids: int64(ids),
    attention_mask: int64(Array.from({ length }, () => 1)),
    position_ids: int64(ids.map((_, index) => pastLength + index)),
  };
}

/** Named tensors, only those that are asked for. */
export function pick(tensors: Tensors, ...patterns: readonly RegExp[]): Tensors {
  return Object.fromEntries(Object.entries(tensors).filter(([name]) => patterns.some((pattern) => pattern.test(name))));
}

/** The scores of all tokens to follow the last one. */
export function lastLogits({ shape, data }: Tensor): readonly number[] {
  return Array.from(data as Float32Array).slice(-(shape.at(-1) ?? 0));
}

/** Always takes the likeliest token; `step` is the model, which is given its own cache back. */
export async function decodeGreedily(
  prompt: readonly number[],
  newTokens: number,
  step: (inputs: Tensors) => Promise<Tensors>,
): Promise<{ readonly ids: readonly number[]; readonly firstLogits: readonly number[] }> {
  const ids: number[] = [];
  let firstLogits: readonly number[] = [];
  let inputs: Tensors = { ...tokenInputs(prompt, 0), ...emptyPast() };
  while (ids.length < newTokens) {
    const outputs = await step(inputs);
    const logits = lastLogits(outputs.logits as Tensor);
    if (ids.length === 0) firstLogits = logits;
    const id = logits.indexOf(Math.max(...logits));
    inputs = { ...tokenInputs([id], prompt.length + ids.length), ...toPast(outputs) };
    ids.push(id);
  }
  return { ids, firstLogits };
}

function int64(values: readonly number[]): Tensor {
  return tensor(BigInt64Array.from(values, BigInt), [1, values.length]);
}
