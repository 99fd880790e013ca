import { assertTensor, type Tensor, type TensorInfo, type Tensors } from '@splitlearn/comm/model';
import { ManagerError } from '../errors.js';

/** The inputs or outputs of an ONNX model. */
export interface OnnxValues {
  readonly tensors: TensorInfo[];
  /** Those that no tensor can be; `what` completes "it is …". */
  readonly others: { readonly name: string; readonly what: string }[];
}

/** Beyond this many, inputs and outputs are counted in a message, not listed: it has to fit into an HTTP header. */
const MOST_LISTED = 12;

/**
 * Checks that tensors are what a model takes: all of its inputs and no others, each of its dtype, its number of
 * dimensions and its fixed dimensions.
 *
 * Dimensions of the same name may differ between inputs. ONNX Runtime does not mind, models broadcast along them, and
 * exporters give one name to sizes that are not the same.
 *
 * @throws ManagerError `INVALID_INPUT`, naming the model, the input, what it is and what it must be.
 */
export function checkInputs(modelId: string, wanted: readonly TensorInfo[], inputs: Tensors): void {
  const given = new Map(Object.entries(inputs));
  const missing = wanted.map(({ name }) => name).filter((name) => !given.has(name));
  if (missing.length > 0) {
    throw invalid(`model '${modelId}' was not given ${quoted(missing)}; it takes ${listTensors(wanted)}`);
  }
  const known = new Set(wanted.map(({ name }) => name));
  const unknown = [...given.keys()].filter((name) => !known.has(name));
  if (unknown.length > 0) {
    throw invalid(`model '${modelId}' has no input ${quoted(unknown)}; it takes ${listTensors(wanted)}`);
  }
  for (const info of wanted) checkInput(modelId, info, given.get(info.name) as Tensor);
}

function checkInput(modelId: string, { name, dtype, shape }: TensorInfo, tensor: Tensor): void {
  const input = `input '${name}' of model '${modelId}'`;
  try {
    assertTensor(tensor, name);
  } catch (error) {
    throw invalid(`${input}: ${(error as Error).message}`, { cause: error });
  }
  if (tensor.dtype !== dtype) throw invalid(`${input} has dtype ${tensor.dtype}, but must have ${dtype}`);
  if (!fits(tensor.shape, shape)) {
    throw invalid(`${input} has shape [${tensor.shape.join(', ')}], but must have [${shape.join(', ')}]`);
  }
  if (tensor.dtype !== 'string') return;
  // The binding hands strings on as C does, up to the first NUL, and drops the rest without a word.
  const cut = tensor.data.findIndex((element) => element.includes('\0'));
  if (cut !== -1) throw invalid(`${input} has a NUL character in the string at index ${cut}, which would cut it off`);
}

function fits(shape: readonly number[], wanted: TensorInfo['shape']): boolean {
  // ONNX Runtime gives [] for scalars and for inputs of unknown rank alike, and takes any shape for both.
  if (wanted.length === 0) return true;
  if (wanted.length !== shape.length) return false;
  return wanted.every((size, index) => typeof size === 'string' || size === shape[index]);
}

/**
 * The names of the outputs that a run has to hand out. It computes all of them, but copies no others.
 *
 * @param names - The wanted names; empty: all outputs that are tensors.
 * @throws ManagerError `INVALID_INPUT` for a name that is no output, or one that is no tensor.
 */
export function selectOutputs(modelId: string, outputs: OnnxValues, names: readonly string[]): readonly string[] {
  const known = outputs.tensors.map(({ name }) => name);
  if (names.length === 0) return known;
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length === 0) return names;
  const other = outputs.others.find(({ name }) => unknown.includes(name));
  const problem = other
    ? `cannot hand out '${other.name}', because it is ${other.what}`
    : `has no output ${quoted(unknown)}`;
  throw invalid(`model '${modelId}' ${problem}; it gives ${listTensors(outputs.tensors)}`);
}

/** Tensors by name, dtype and shape, for a message. */
export function listTensors(tensors: readonly TensorInfo[]): string {
  if (tensors.length === 0) return 'nothing';
  return list(
    tensors.map(({ name, dtype, shape }) => {
      const size = shape.length === 0 ? '(a scalar or any shape)' : `[${shape.join(', ')}]`;
      return `'${name}' ${dtype} ${size}`;
    }),
  );
}

function quoted(names: readonly string[]): string {
  return list(names.map((name) => `'${name}'`));
}

function list(items: readonly string[]): string {
  const more = items.length - MOST_LISTED;
  return items.slice(0, MOST_LISTED).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

function invalid(message: string, options?: ErrorOptions): ManagerError {
  return new ManagerError('INVALID_INPUT', message, options);
}
