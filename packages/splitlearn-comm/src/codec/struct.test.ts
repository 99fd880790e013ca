import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { google } from '#proto';
import { canonical, parameters } from '../../test/support/arbitraries.js';
import type { JsonValue } from '../compute-function.js';
import { fromStruct, toStruct } from './struct.js';

type Json = Record<string, JsonValue>;

/** There and back again, over the bytes. */
function roundTrip(object: Json): Json {
  const bytes = google.protobuf.Struct.encode(toStruct(object)).finish();
  return fromStruct(google.protobuf.Struct.decode(bytes)) as Json;
}

function nested(depth: number, wrap: (inner: JsonValue) => JsonValue): Json {
  let value: JsonValue = 1;
  for (let level = 1; level < depth; level++) value = wrap(value);
  return { value };
}

describe('Struct', () => {
  it('carries any JSON object', () => {
    fc.assert(
      fc.property(parameters, (object) => {
        expect(canonical(roundTrip(object))).toBe(canonical(object));
      }),
      { numRuns: 300 },
    );
  });

  it('keeps apart what JavaScript takes for false', () => {
    const object = { nothing: null, no: false, zero: 0, minusZero: -0, empty: '', list: [], object: {} };
    expect(roundTrip(object)).toStrictEqual(object);
  });

  it('takes __proto__ for a key like any other', () => {
    const object = JSON.parse('{"__proto__": {"polluted": true}}') as Json;
    expect(Object.getOwnPropertyNames(roundTrip(object))).toEqual(['__proto__']);
    expect({}).not.toHaveProperty('polluted');
  });

  it('leaves out what is undefined, as JSON does', () => {
    expect(roundTrip({ a: undefined as unknown as JsonValue, b: 1 })).toEqual({ b: 1 });
  });

  it.each<[string, unknown, string]>([
    ['NaN', Number.NaN, 'parameters.a.b[1] is number NaN, which JSON cannot say'],
    ['an infinity', Number.NEGATIVE_INFINITY, 'parameters.a.b[1] is number -Infinity, which JSON cannot say'],
    ['a bigint', 5n, 'parameters.a.b[1] is bigint 5, which JSON cannot say'],
    ['undefined in a list', undefined, 'parameters.a.b[1] is undefined undefined, which JSON cannot say'],
    ['a symbol', Symbol('s'), 'parameters.a.b[1] is symbol Symbol(s), which JSON cannot say'],
  ])('refuses %s and says where it is', (_, value, message) => {
    const object = { a: { b: [0, value] } } as unknown as Json;
    expect(() => toStruct(object)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT', message }));
  });

  it.each<[string, (inner: JsonValue) => JsonValue]>([
    ['objects', (inner) => ({ inner })],
    ['lists', (inner) => [inner]],
  ])('carries %s nested 32 deep, and refuses those that are deeper', (_, wrap) => {
    expect(roundTrip(nested(32, wrap))).toEqual(nested(32, wrap));
    expect(() => toStruct(nested(33, wrap))).toThrow(
      expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: expect.stringContaining('nested more than 32 deep'),
      }),
    );
  });

  it('refuses an object that contains itself', () => {
    const object: Json = {};
    object.self = object;
    expect(() => toStruct(object)).toThrow(/^parameters(\.self)+ is nested more than 32 deep, or contains itself$/);
  });
});
