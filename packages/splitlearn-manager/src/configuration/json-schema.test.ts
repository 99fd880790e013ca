import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
// @ts-expect-error: a tool without types
import { schemaText } from '../../tools/json-schema.mjs';
import { configurationJsonSchema } from './json-schema.js';

const FILE = new URL('../../splitlearn.schema.json', import.meta.url);

interface JsonSchema {
  readonly description?: string;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly additionalProperties?: JsonSchema | boolean;
  readonly const?: unknown;
}

/** All that a schema has in it, by the way there. */
function* parts(schema: JsonSchema, path = ''): Iterable<[string, JsonSchema]> {
  yield [path, schema];
  for (const [name, field] of Object.entries(schema.properties ?? {})) yield* parts(field, `${path}.${name}`);
  for (const option of schema.anyOf ?? []) yield* parts(option, path);
  if (schema.items) yield* parts(schema.items, `${path}[]`);
  if (typeof schema.additionalProperties === 'object') yield* parts(schema.additionalProperties, `${path}{}`);
}

describe('the JSON schema of splitlearn.yaml', () => {
  const text: string = schemaText(configurationJsonSchema());

  it('is the one that is committed: `node tools/make-json-schema.mjs` makes it anew', () => {
    expect(readFileSync(FILE, 'utf8')).toBe(text);
  });

  it('says of every field what it is', () => {
    const fields = [...parts(JSON.parse(text))].filter(([path]) => /\w$/.test(path));
    expect(fields.length).toBeGreaterThan(50);
    const silent = fields.filter(([, schema]) => schema.description === undefined).map(([path]) => path);
    // A model and a route that are alternatives or values are described by their fields.
    expect(silent).toEqual([]);
  });

  it('has nothing that JSON cannot say, and knows no other fields', () => {
    for (const [path, schema] of parts(JSON.parse(text))) {
      expect(Object.keys(schema), path).not.toEqual([]);
      expect(schema.const, path).not.toBeNull();
      if (schema.properties) expect(schema.additionalProperties, path).toBe(false);
    }
  });

  it('lets a model be its source alone', () => {
    const { properties } = JSON.parse(text) as JsonSchema;
    expect(properties?.models?.items?.anyOf?.map((option) => Object.keys(option).includes('properties'))).toEqual([
      false,
      true,
    ]);
  });
});
