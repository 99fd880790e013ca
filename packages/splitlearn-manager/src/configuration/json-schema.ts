import { z } from 'zod';
import { ConfigurationFile, ModelEntry } from './configuration-file.js';
import { valueAt } from './explain.js';

/** The JSON schema of `splitlearn.yaml`, for editors (https://json-schema.org/draft/2020-12). */
export function configurationJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(ConfigurationFile, {
    io: 'input',
    unrepresentable: 'any',
    override: ({ zodSchema, jsonSchema }) => {
      if (zodSchema === ModelEntry) {
        const { ...object } = jsonSchema;
        for (const name of Object.keys(jsonSchema)) delete jsonSchema[name];
        jsonSchema.anyOf = [{ type: 'string', minLength: 1 }, object];
      }
      // JSON has no infinite number; what stands for it in YAML, `.inf`, is one to those who check YAML by this.
      const { def } = (zodSchema as z.core.$ZodTypes)._zod;
      if (
        def.type === 'union' &&
        jsonSchema.anyOf?.some((option) => 'const' in option && option.const === Number.POSITIVE_INFINITY)
      ) {
        const [number] = jsonSchema.anyOf;
        delete jsonSchema.anyOf;
        Object.assign(jsonSchema, number);
      }
      // What a number is safe up to says nothing to people.
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum;
      if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum;
    },
  });
  // It differs by the system, and the schema does not.
  delete isolation(schema)?.default;
  return { title: 'SplitLearn configuration (splitlearn.yaml, splitlearn.json)', ...schema };
}

function isolation(schema: z.core.JSONSchema.JSONSchema): z.core.JSONSchema.JSONSchema | undefined {
  const fields = ['properties', 'models', 'items', 'anyOf', 1, 'properties', 'isolation'];
  return valueAt(schema, fields) as z.core.JSONSchema.JSONSchema | undefined;
}
