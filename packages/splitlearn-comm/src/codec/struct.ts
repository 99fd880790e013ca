import { google } from '#proto';
import type { JsonValue } from '../compute-function.js';
import { CommError } from '../errors.js';

// JSON objects to and from google.protobuf.Struct.

type Json = Readonly<Record<string, JsonValue>>;

/** @throws CommError `INVALID_ARGUMENT` for what JSON cannot say: NaN, infinities, functions, bigints. */
export function toStruct(object: Json, path = 'parameters'): google.protobuf.IStruct {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  return { fields: Object.fromEntries(entries.map(([key, value]) => [key, toValue(value, `${path}.${key}`)])) };
}

function toValue(value: JsonValue, path: string): google.protobuf.IValue {
  if (value === null) return { nullValue: google.protobuf.NullValue.NULL_VALUE };
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'number' && Number.isFinite(value)) return { numberValue: value };
  if (isArray(value)) return { listValue: { values: value.map((item, index) => toValue(item, `${path}[${index}]`)) } };
  if (typeof value === 'object') return { structValue: toStruct(value, path) };
  throw new CommError('INVALID_ARGUMENT', `${path} is ${typeof value} ${value}, which JSON cannot say`);
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
