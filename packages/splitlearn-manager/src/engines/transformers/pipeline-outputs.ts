import { type Tensor, type TensorInfo, type Tensors, tensor } from '@splitlearn/comm/model';
import type { TaskOutput } from './tasks.js';

/** Pixels, as transformers.js has them. */
interface Image {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
  readonly channels: number;
}

/** A tensor, as transformers.js has them. */
interface LibraryTensor {
  readonly data: Float32Array;
  readonly dims: readonly number[];
}

type Entry = Readonly<Record<string, unknown>>;

const json = (shape: string): TensorInfo => ({ name: 'json', dtype: 'string', shape: [shape] });
const label = (...shape: string[]): TensorInfo[] => [
  { name: 'label', dtype: 'string', shape },
  { name: 'score', dtype: 'float32', shape },
];

/**
 * The outputs of each kind of task, as they are described to clients.
 *
 * `json` has the pipeline's own result for every input; the tensors beside it are the same in a form that needs no
 * parsing. With several results for each input they have one dimension more; they are left out where they would be
 * ragged, and boxes and masks where several images were given.
 */
export const OUTPUTS: Readonly<Record<TaskOutput, readonly TensorInfo[]>> = {
  json: [json('n')],
  labels: [json('n'), ...label('n')],
  texts: [
    json('n'),
    { name: 'text', dtype: 'string', shape: ['n'] },
    { name: 'score', dtype: 'float32', shape: ['n'] },
  ],
  // Pooling takes the dimension in the middle away.
  embedding: [{ name: 'embedding', dtype: 'float32', shape: ['n', 'tokens', 'size'] }],
  boxes: [json('n'), ...label('found'), { name: 'box', dtype: 'float32', shape: ['found', 4] }],
  masks: [json('n'), ...label('found'), { name: 'mask', dtype: 'uint8', shape: ['found', 'height', 'width'] }],
  image: [{ name: 'image', dtype: 'uint8', shape: ['n', 'height', 'width', 'channels'] }],
  depth: [{ name: 'depth', dtype: 'float32', shape: ['n', 'height', 'width'] }],
  audio: [
    { name: 'audio', dtype: 'float32', shape: ['samples'] },
    { name: 'sampling_rate', dtype: 'int64', shape: [1] },
  ],
};

const TEXT_KEYS = ['summary_text', 'translation_text', 'generated_text', 'text', 'answer'];

/**
 * Makes tensors of what a pipeline gave.
 *
 * @param results - One result for every call: a text task has one call, whose result is an array with one member for
 * every text.
 */
export function pipelineOutputs(output: TaskOutput, batched: boolean, results: readonly unknown[]): Tensors {
  const [first] = results;
  if (output === 'embedding')
    return {
      embedding: stack(
        results.map((result) => floats(result as LibraryTensor)),
        true,
      ),
    };
  if (output === 'image') return { image: stack((results as Image[]).map(pixels), false) };
  if (output === 'depth') {
    return {
      depth: stack(
        (results as { predicted_depth: LibraryTensor }[]).map((one) => floats(one.predicted_depth)),
        false,
      ),
    };
  }
  if (output === 'audio') {
    const { data, sampling_rate } = first as { data: Float32Array; sampling_rate: number };
    return { audio: tensor(data), sampling_rate: tensor(BigInt64Array.of(BigInt(sampling_rate))) };
  }
  const members = (batched ? first : results) as unknown[];
  const all: Record<string, Tensor | undefined> = { json: tensor(members.map(toJson), undefined, 'string') };
  if (output === 'labels') Object.assign(all, labels(members.map(entries)));
  if (output === 'texts') Object.assign(all, texts(members.map(entries)));
  if (output === 'boxes' && members.length === 1) Object.assign(all, boxes(entries(members[0]) as Entry[]));
  if (output === 'masks' && members.length === 1) Object.assign(all, masks(entries(members[0]) as Entry[]));
  return Object.fromEntries(Object.entries(all).filter((pair): pair is [string, Tensor] => pair[1] !== undefined));
}

/** A result as JSON. Pixels are left out: they are a tensor of their own. */
function toJson(result: unknown): string {
  return JSON.stringify(result, (_, value: unknown) => {
    if (typeof value === 'bigint') return Number(value);
    return isImage(value) || ArrayBuffer.isView(value) ? undefined : value;
  });
}

/** What was found in one input; an array where the pipeline gave one. */
function entries(member: unknown): Entry | readonly Entry[] {
  const { labels, scores } = member as { labels?: string[]; scores?: number[] };
  if (!Array.isArray(labels)) return member as Entry | readonly Entry[];
  return labels.map((one, index) => ({ label: one, score: scores?.[index] }));
}

function labels(members: readonly (Entry | readonly Entry[])[]) {
  return { label: column(members, ['label', 'token_str'], 'string'), score: column(members, ['score'], 'float32') };
}

function texts(members: readonly (Entry | readonly Entry[])[]) {
  const single = members.map((member) =>
    Array.isArray(member) && member.length === 1 ? (member[0] as Entry) : member,
  );
  return { text: column(single, TEXT_KEYS, 'string'), score: column(single, ['score'], 'float32') };
}

/** One value of each entry: of shape [n], or [n, k] where k entries were found in each input; absent where ragged. */
function column(members: readonly (Entry | readonly Entry[])[], keys: readonly string[], dtype: 'string' | 'float32') {
  const rows = members.map((member) => [member].flat() as Entry[]);
  const width = rows[0]?.length ?? 0;
  const values = rows.flat().map((entry) => keys.map((key) => entry[key]).find((value) => value !== undefined));
  const type = dtype === 'string' ? 'string' : 'number';
  if (rows.some(({ length }) => length !== width) || values.some((value) => typeof value !== type)) return undefined;
  const shape = members.some(Array.isArray) ? [rows.length, width] : [rows.length];
  return dtype === 'string'
    ? tensor(values as string[], shape, 'string')
    : tensor(Float32Array.from(values as number[]), shape);
}

function boxes(found: readonly Entry[]) {
  const corners = found.flatMap(({ box }) => {
    const { xmin, ymin, xmax, ymax } = box as Record<string, number>;
    return [xmin, ymin, xmax, ymax] as number[];
  });
  return { ...found1d(found), box: tensor(Float32Array.from(corners), [found.length, 4]) };
}

function masks(found: readonly Entry[]) {
  const all = found.map(({ mask }) => {
    const { data, shape } = pixels(mask as Image);
    return { dtype: 'uint8', data, shape: shape.slice(0, 2) } as Tensor<'uint8'>;
  });
  const [first] = all;
  const none: Tensor = tensor(new Uint8Array(0), [0, 0, 0]);
  return { ...found1d(found), mask: first ? { ...stack(all, false, true) } : none };
}

/** What has no label or no score has an empty one, or NaN. */
function found1d(found: readonly Entry[]) {
  return {
    label: tensor(
      found.map((entry) => String(entry.label ?? '')),
      [found.length],
      'string',
    ),
    score: tensor(Float32Array.from(found, (entry) => Number(entry.score ?? Number.NaN))),
  };
}

function floats({ data, dims }: LibraryTensor): Tensor<'float32'> {
  return { dtype: 'float32', shape: [...dims], data: Float32Array.from(data) };
}

function pixels({ data, width, height, channels }: Image): Tensor<'uint8'> {
  return { dtype: 'uint8', shape: [height, width, channels], data: Uint8Array.from(data) };
}

function isImage(value: unknown): value is Image {
  return typeof value === 'object' && value !== null && 'channels' in value && 'width' in value && 'data' in value;
}

/** Several tensors of one shape as one; a single one as it is, unless `always`. Where `joined`, the first dimension is there already. */
function stack(all: readonly (Tensor<'float32'> | Tensor<'uint8'>)[], joined: boolean, always = false): Tensor {
  const [first] = all;
  if (!first) throw new Error('a pipeline gave no result');
  if (all.length === 1 && !always) return first;
  if (all.some(({ shape }) => String(shape) !== String(first.shape)))
    throw new Error('the results differ in their shapes');
  const shape = joined ? [all.length * (first.shape[0] ?? 1), ...first.shape.slice(1)] : [all.length, ...first.shape];
  const data =
    first.dtype === 'float32'
      ? new Float32Array(all.length * first.data.length)
      : new Uint8Array(all.length * first.data.length);
  for (const [index, one] of all.entries()) data.set(one.data, index * first.data.length);
  return { dtype: first.dtype, shape, data } as Tensor;
}
