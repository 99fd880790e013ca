import { CommError } from './errors.js';
import { float32ToBfloat16, float32ToFloat16, roundToOdd } from './half.js';

/** The element types that a tensor can have: those of ONNX and NumPy that have a byte representation. */
export type DType =
  | 'float32'
  | 'float64'
  | 'float16'
  | 'bfloat16'
  | 'int8'
  | 'uint8'
  | 'int16'
  | 'uint16'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'uint64'
  | 'bool'
  | 'string';

/**
 * The array that holds a dtype's elements. `float16` and `bfloat16` are kept as their 16 bits (see `float16ToFloat32`
 * and `bfloat16ToFloat32`), `bool` as one byte an element.
 */
export interface TensorDataByDType {
  float32: Float32Array;
  float64: Float64Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  int8: Int8Array;
  uint8: Uint8Array;
  int16: Int16Array;
  uint16: Uint16Array;
  int32: Int32Array;
  uint32: Uint32Array;
  int64: BigInt64Array;
  uint64: BigUint64Array;
  bool: Uint8Array;
  string: readonly string[];
}

/** The elements of a tensor of any dtype, row-major. */
export type TensorData = TensorDataByDType[DType];

/**
 * An n-dimensional array. `data` has as many elements as the product of `shape`, in row-major order; a scalar has
 * shape `[]`. Checking `dtype` narrows the type of `data`.
 */
export type Tensor<D extends DType = DType> = {
  [K in D]: { readonly dtype: K; readonly shape: readonly number[]; readonly data: TensorDataByDType[K] };
}[D];

/** Tensors by name. */
export type Tensors = Readonly<Record<string, Tensor>>;

interface TypedArrayConstructor {
  readonly BYTES_PER_ELEMENT: number;
  readonly name: string;
  new (length: number): Exclude<TensorData, readonly string[]>;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): Exclude<TensorData, readonly string[]>;
}

/** The typed array of each dtype but `string`. The first dtype that names an array is what that array means by itself. */
export const TYPED_ARRAYS: Readonly<Record<Exclude<DType, 'string'>, TypedArrayConstructor>> = {
  float32: Float32Array,
  float64: Float64Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
};
const DTYPES_BY_ARRAY = Object.entries(TYPED_ARRAYS) as [DType, TypedArrayConstructor][];

/** The bytes of one element, or `undefined` for strings, which have no fixed size. */
export function bytesPerElement(dtype: DType): number | undefined {
  return dtype === 'string' ? undefined : TYPED_ARRAYS[dtype].BYTES_PER_ELEMENT;
}

/** Whether a value names a dtype. */
export function isDType(value: unknown): value is DType {
  return value === 'string' || (typeof value === 'string' && Object.hasOwn(TYPED_ARRAYS, value));
}

/** The most dimensions a tensor may have; ONNX Runtime and NumPy have limits of the same order. */
export const MAX_RANK = 32;

/**
 * The number of elements of a shape: 1 for a scalar, 0 where any dimension is 0.
 *
 * @throws CommError `INVALID_ARGUMENT` for a dimension that is negative or no integer, for more than 32 dimensions,
 * and for a product beyond 2^53 − 1.
 */
export function elementCount(shape: readonly number[], name = 'tensor'): number {
  if (shape.length > MAX_RANK) {
    throw invalid(`tensor '${name}' has ${shape.length} dimensions; at most ${MAX_RANK} are supported`);
  }
  let count = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) {
      const sizes = Array.from(shape, String);
      throw invalid(`tensor '${name}' has shape [${sizes}]: every dimension must be an integer from 0 to 2^53 - 1`);
    }
    count *= size;
    // Checked at each step, not at the end: a later 0 must not hide an overflow that an earlier reader trips over.
    if (!Number.isSafeInteger(count)) throw invalid(`tensor '${name}' has shape [${shape}]: its size overflows`);
  }
  return count;
}

/**
 * Checks that a value is a tensor: a known dtype, the array that belongs to it, and as many elements as the shape says.
 *
 * @throws CommError `INVALID_ARGUMENT`, naming the tensor and both sizes.
 */
export function assertTensor(value: Tensor, name = 'tensor'): void {
  if (typeof value !== 'object' || value === null || !Array.isArray(value.shape)) {
    throw invalid(`'${name}' is no tensor: pass { dtype, shape, data }, for instance from tensor([1, 2, 3])`);
  }
  const { dtype, shape, data } = value;
  if (!isDType(dtype)) throw invalid(`tensor '${name}' has the unknown dtype '${String(dtype)}'`);
  const expected = dtype === 'string' ? Array : TYPED_ARRAYS[dtype];
  if (!(data instanceof expected)) {
    throw invalid(`tensor '${name}' of dtype ${dtype} must hold its data as ${expected.name}`);
  }
  const count = elementCount(shape, name);
  if (data.length !== count) {
    throw invalid(`tensor '${name}' of shape [${shape}] needs ${count} elements, but its data has ${data.length}`);
  }
  if (dtype === 'string') {
    const wrong = data.findIndex((element) => typeof element !== 'string');
    if (wrong !== -1) throw invalid(`tensor '${name}' of dtype string has a ${typeof data[wrong]} at index ${wrong}`);
  }
}

type Scalar = number | bigint | boolean | string;
type Nested = Scalar | readonly Nested[];

/** What {@link tensor} makes a tensor of: one value, an array nested as deep as the tensor has dimensions, or typed data. */
export type TensorLike = Nested | TensorData;

/**
 * Makes a tensor. Typed arrays are kept, not copied; plain (nested) arrays and single values are converted.
 *
 * @param data - A typed array, a value (0-d), or an array nested as deep as the tensor has dimensions.
 * @param shape - Default: the nesting of `data`; the length of a typed array.
 * @param dtype - Default: what the typed array holds; `float32` for numbers, `int64` for bigints, `bool`, `string`.
 * Numbers given for a floating-point dtype are rounded to nearest-even; booleans given for a numeric one are 1 and 0.
 * @throws CommError `INVALID_ARGUMENT` where shape and data disagree, the nesting is ragged, elements are of mixed
 * types, or an element does not fit its dtype.
 *
 * @example
 * tensor([[1, 2], [3, 4]])                       // float32 [2, 2]
 * tensor(new BigInt64Array([1n, 2n]), [1, 2])    // int64 [1, 2]
 * tensor('hello')                                // string []
 * tensor([1.5, 2.5], [2], 'float16')             // float16 [2]
 */
export function tensor(data: Float32Array, shape?: readonly number[]): Tensor<'float32'>;
export function tensor(data: Float64Array, shape?: readonly number[]): Tensor<'float64'>;
export function tensor(data: BigInt64Array, shape?: readonly number[]): Tensor<'int64'>;
// Not of a `string[]`, which may be empty: nothing is left then to tell that strings were meant.
export function tensor(data: string | readonly [string, ...string[]], shape?: readonly number[]): Tensor<'string'>;
export function tensor<D extends DType>(data: TensorLike, shape: readonly number[] | undefined, dtype: D): Tensor<D>;
export function tensor(data: TensorLike, shape?: readonly number[], dtype?: DType): Tensor;
export function tensor(data: TensorLike, shape?: readonly number[], dtype?: DType): Tensor {
  const own = typedArrayDType(data);
  const result = own
    ? { dtype: dtype ?? own, shape: shape ?? [(data as Uint8Array).length], data }
    : convert(data as Nested, shape, dtype);
  assertTensor(result as Tensor);
  return result as Tensor;
}

function typedArrayDType(data: TensorLike): DType | undefined {
  if (!ArrayBuffer.isView(data)) return undefined;
  for (const [dtype, array] of DTYPES_BY_ARRAY) if (data instanceof array) return dtype;
  throw invalid(`a ${Object.prototype.toString.call(data).slice(8, -1)} holds no dtype that a tensor can have`);
}

/** The dtype of plain values, by their `typeof`. */
const INFERRED: Readonly<Record<string, DType | undefined>> = {
  number: 'float32',
  bigint: 'int64',
  boolean: 'bool',
  string: 'string',
};

/** A tensor from plain values: flattens the nesting, which gives the shape, and picks the array of the dtype. */
function convert(data: Nested, shape: readonly number[] | undefined, dtype: DType | undefined) {
  const nesting: number[] = [];
  for (let level: Nested | undefined = data; Array.isArray(level); level = level[0]) {
    // Not left to elementCount: it would not be reached, for a nesting that is deeper than the stack or has no end.
    if (nesting.length === MAX_RANK) throw invalid(`the data is nested more than ${MAX_RANK} arrays deep`);
    nesting.push(level.length);
  }
  const elements: unknown[] = [];
  flatten(data, nesting, 0, elements);
  const kind = elements.length === 0 ? 'number' : typeof elements[0];
  const inferred = INFERRED[kind];
  if (!inferred) throw invalid(`a tensor has elements of type ${Object.keys(INFERRED).join(', ')}; not ${kind}`);
  const mixed = elements.findIndex((element) => typeof element !== kind);
  if (mixed !== -1) throw invalid(`the data mixes ${kind} and ${typeof elements[mixed]} (at index ${mixed})`);
  const to = dtype ?? inferred;
  if (!isDType(to)) throw invalid(`unknown dtype '${String(to)}'`);
  if (elements.length > 0 && (kind === 'string') !== (to === 'string')) {
    throw invalid(`a ${kind} cannot be an element of dtype ${to}`);
  }
  return { dtype: to, shape: shape ?? nesting, data: toTensorData(elements as Scalar[], to) };
}

function flatten(value: Nested, nesting: readonly number[], depth: number, into: unknown[]): void {
  if (depth === nesting.length && !Array.isArray(value)) into.push(value);
  else if (Array.isArray(value) && value.length === nesting[depth]) {
    for (const element of value) flatten(element, nesting, depth + 1, into);
  } else {
    const wanted = depth === nesting.length ? 'a single value' : `an array of ${nesting[depth]}`;
    const found = Array.isArray(value) ? `an array of ${value.length}` : 'a single value';
    throw invalid(`the nested arrays are ragged: at depth ${depth} there is ${wanted}, and also ${found}`);
  }
}

function toTensorData(elements: Scalar[], dtype: DType): TensorData {
  if (dtype === 'string') return elements as string[];
  if (dtype === 'float16') return float32ToFloat16(roundToOdd(elements.map(Number)));
  if (dtype === 'bfloat16') return float32ToBfloat16(roundToOdd(elements.map(Number)));
  const array = new TYPED_ARRAYS[dtype](elements.length);
  const big = array instanceof BigInt64Array || array instanceof BigUint64Array;
  const exact = dtype !== 'float32' && dtype !== 'float64';
  elements.forEach((element, index) => {
    const wanted = big ? toBigInt(element, index) : Number(element);
    (array as { [index: number]: unknown })[index] = wanted;
    if ((exact && array[index] !== wanted) || (dtype === 'bool' && (array[index] as number) > 1)) {
      throw invalid(`${element} at index ${index} does not fit dtype ${dtype}`);
    }
  });
  return array;
}

function toBigInt(element: Scalar, index: number): bigint {
  if (typeof element === 'number' && !Number.isSafeInteger(element)) {
    throw invalid(`${element} at index ${index} is no exact integer; use a bigint`);
  }
  return BigInt(element);
}

function invalid(message: string): CommError {
  return new CommError('INVALID_ARGUMENT', message);
}
