import { google } from '#proto';
import type { JsonValue } from '../compute-function.js';
import { CommError } from '../errors.js';

// JSON objects to and from google.protobuf.Struct.

type Json = Readonly<Record<string, JsonValue>>;

/** Protobuf refuses messages nested more than 100 deep, in every language; an object in an object is three of them. */
const MAX_DEPTH = 32;

/** @throws CommError `INVALID_ARGUMENT` for what JSON cannot say (NaN, infinities, functions, bigints), and deep nesting. */
export function toStruct(object: Json, path = 'parameters', depth = 1): google.protobuf.IStruct {
  if (depth > MAX_DEPTH) throw tooDeep(path);
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  return { fields: Object.fromEntries(entries.map(([key, value]) => [key, toValue(value, `${path}.${key}`, depth)])) };
}

function toValue(value: JsonValue, path: string, depth: number): google.protobuf.IValue {
  if (value === null) return { nullValue: google.protobuf.NullValue.NULL_VALUE };
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'number' && Number.isFinite(value)) return { numberValue: value };
  if (isArray(value)) {
    if (depth === MAX_DEPTH) throw tooDeep(path);
    return { listValue: { values: value.map((item, index) => toValue(item, `${path}[${index}]`, depth + 1)) } };
  }
  if (typeof value === 'object') return { structValue: toStruct(value, path, depth + 1) };
  throw new CommError('INVALID_ARGUMENT', `${path} is ${typeof value} ${String(value)}, which JSON cannot say`);
}

function tooDeep(path: string): CommError {
  return new CommError('INVALID_ARGUMENT', `${path} is nested more than ${MAX_DEPTH} deep, or contains itself`);
}

/** Widened: `Array.isArray` alone does not narrow a readonly array. */
function isArray(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value);
}

export function fromStruct(struct: google.protobuf.IStruct): Json {
  return Object.fromEntries(Object.entries(struct.fields ?? {}).map(([key, value]) => [key, fromValue(value)]));
}

function fromValue(value: google.protobuf.IValue): JsonValue {
  if (value.structValue) return fromStruct(value.structValue);
  if (value.listValue) return (value.listValue.values ?? []).map(fromValue);
  return value.stringValue ?? value.numberValue ?? value.boolValue ?? null;
}
