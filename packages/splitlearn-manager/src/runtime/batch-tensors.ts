import {
  assertTensor,
  type ComputeRequest,
  type ModelInfo,
  type Tensor,
  type TensorInfo,
  type Tensors,
} from '@splitlearn/comm';

/** A first axis that the model gives no name. */
const UNNAMED = '?';

type Shapes = Pick<ModelInfo, 'inputs' | 'outputs'>;

/**
 * Why a model's requests cannot be put together, to complete "because …"; `undefined` where they can: all inputs and
 * outputs have an open first axis, and those that name it call it the same.
 */
export function batchingProblem({ inputs = [], outputs = [] }: Shapes): string | undefined {
  if (inputs.length === 0 || outputs.length === 0) return 'it does not tell the shapes of its inputs and outputs';
  const all = [
    ...inputs.map((info) => ({ what: 'input', info })),
    ...outputs.map((info) => ({ what: 'output', info })),
  ];
  const names = new Map<string, string>();
  for (const { what, info } of all) {
    const [axis] = info.shape;
    const value = `its ${what} '${info.name}' of shape [${info.shape.join(', ')}]`;
    if (typeof axis !== 'string') return `${value} has no open first axis`;
    if (axis !== UNNAMED && !names.has(axis)) names.set(axis, value);
  }
  if (names.size <= 1) return undefined;
  return `the first axes have different names, so they may be of different things: ${[...names.values()].join(', ')}`;
}

/** How a request can be computed with others. */
export interface BatchPlace {
  /** Requests of the same group can be computed together. */
  readonly group: string;
  readonly rows: number;
}

/** `undefined` for a request that runs alone: it has no rows, or not the same number everywhere, or is no valid one. */
export function batchPlace(request: ComputeRequest, infos: readonly TensorInfo[]): BatchPlace | undefined {
  const { inputs, parameters = {}, outputs = [] } = request;
  const names = Object.keys(inputs);
  if (names.length !== infos.length) return undefined;
  const rows = inputs[names[0] as string]?.shape[0] ?? 0;
  if (rows < 1) return undefined;
  const shapes: number[][] = [];
  for (const info of infos) {
    const tensor = Object.hasOwn(inputs, info.name) ? inputs[info.name] : undefined;
    if (!tensor || tensor.shape[0] !== rows || !fits(tensor, info)) return undefined;
    shapes.push(tensor.shape.slice(1));
  }
  return { group: JSON.stringify([shapes, outputs, parameters]), rows };
}

function fits(tensor: Tensor, { name, dtype, shape }: TensorInfo): boolean {
  if (tensor.dtype !== dtype || tensor.shape.length !== shape.length) return false;
  if (!shape.every((size, index) => typeof size === 'string' || size === tensor.shape[index])) return false;
  try {
    assertTensor(tensor, name);
    return true;
  } catch {
    return false;
  }
}

/** The inputs of requests of one group, one after the other along the first axis, in memory of their own. */
export function joinInputs(requests: readonly ComputeRequest[], infos: readonly TensorInfo[]): Tensors {
  return Object.fromEntries(
    infos.map(({ name }) => [name, concatenate(requests.map(({ inputs }) => inputs[name] as Tensor))]),
  );
}

function concatenate(tensors: readonly Tensor[]): Tensor {
  const [first] = tensors as [Tensor];
  let rows = 0;
  let length = 0;
  for (const { shape, data } of tensors) {
    rows += shape[0] as number;
    length += data.length;
  }
  const shape = [rows, ...first.shape.slice(1)];
  if (first.dtype === 'string') {
    return { dtype: 'string', shape, data: tensors.flatMap(({ data }) => data as readonly string[]) };
  }
  const joined = emptyLike(first.data as NumericData, length);
  let at = 0;
  for (const { data } of tensors) {
    joined.set(data as never, at);
    at += data.length;
  }
  return { dtype: first.dtype, shape, data: joined } as Tensor;
}

type NumericData = Exclude<Tensor['data'], readonly string[]>;

function emptyLike(data: NumericData, length: number): NumericData {
  // A Buffer's constructor is not to be called.
  if (data instanceof Uint8Array) return new Uint8Array(length);
  return new (data.constructor as new (length: number) => NumericData)(length);
}

/**
 * The outputs of a run for each of its requests, by how many rows each had: views, which share memory and so are never
 * movable to another thread.
 *
 * @throws RangeError for an output that has not as many rows as the run had.
 */
export function splitOutputs(outputs: Tensors, rowsOfEach: readonly number[]): Tensors[] {
  const total = rowsOfEach.reduce((sum, rows) => sum + rows, 0);
  const entries = Object.entries(outputs);
  for (const [name, { shape }] of entries) {
    if (shape[0] === total) continue;
    throw new RangeError(`output '${name}' of shape [${shape.join(', ')}] has not a row for each of ${total} rows`);
  }
  let row = 0;
  return rowsOfEach.map((rows) => {
    const from = row;
    row += rows;
    return Object.fromEntries(entries.map(([name, tensor]) => [name, rowsOf(tensor, from, row, total)]));
  });
}

function rowsOf({ dtype, shape, data }: Tensor, from: number, to: number, total: number): Tensor {
  const perRow = data.length / total;
  const cut =
    dtype === 'string'
      ? (data as readonly string[]).slice(from * perRow, to * perRow)
      : (data as Uint8Array).subarray(from * perRow, to * perRow);
  return { dtype, shape: [to - from, ...shape.slice(1)], data: cut } as Tensor;
}
