import { splitlearn } from '#proto';
import { CommError } from '../errors.js';
import type { DType } from '../tensor.js';
import type { TensorEncoding } from './encodings/tensor-encoding.js';

// Dtypes and encodings by name here, by number on the wire. The numbers are those of compute.proto, which has the names
// in upper case: DTYPE_FLOAT32, ENCODING_GZIP.

import v1 = splitlearn.comm.v1;

const DTYPE_PREFIX = 'DTYPE_';
const ENCODING_PREFIX = 'ENCODING_';

const DTYPE_NUMBERS = numbersByName(v1.DType, DTYPE_PREFIX) as ReadonlyMap<DType, number>;
const DTYPES = new Map(Array.from(DTYPE_NUMBERS, ([dtype, number]) => [number, dtype]));
const ENCODING_NUMBERS = numbersByName(v1.Encoding, ENCODING_PREFIX) as ReadonlyMap<TensorEncoding, number>;
const ENCODINGS = new Map(Array.from(ENCODING_NUMBERS, ([encoding, number]) => [number, encoding]));

/** Enums as protobufjs makes them have their numbers as keys too. */
function numbersByName(numbers: object, prefix: string): ReadonlyMap<string, number> {
  const named = Object.entries(numbers).filter(([key, value]) => typeof value === 'number' && key.startsWith(prefix));
  const known = named.filter(([key]) => !key.endsWith('_UNSPECIFIED'));
  return new Map(known.map(([key, value]) => [key.slice(prefix.length).toLowerCase(), value as number]));
}

export function dtypeToWire(dtype: DType): number {
  return DTYPE_NUMBERS.get(dtype) as number;
}

/** @throws CommError `INVALID_ARGUMENT` for a number that no dtype has. */
export function dtypeFromWire(number: number, name: string): DType {
  const dtype = DTYPES.get(number);
  if (!dtype) throw new CommError('INVALID_ARGUMENT', `tensor '${name}' has the unknown dtype number ${number}`);
  return dtype;
}

export function encodingToWire(encoding: TensorEncoding): number {
  return ENCODING_NUMBERS.get(encoding) as number;
}

/** The encoding of a number; `undefined` for one that this version does not know. */
export function encodingFromWire(number: number): TensorEncoding | undefined {
  return ENCODINGS.get(number);
}
