import type { z } from 'zod';
import { explain, pathToText } from './configuration/explain.js';
import { ManagerError } from './errors.js';

/** Checks a configuration against its schema and fills in the defaults. */
export function parseConfig<Schema extends z.ZodType>(schema: Schema, config: unknown, what: string): z.output<Schema> {
  const result = schema.safeParse(config);
  if (result.success) return result.data;
  const problems = explain(schema, config, result.error).map(({ path, message }) =>
    path.length === 0 ? `it ${message}` : `${pathToText(path)} ${message}`,
  );
  throw new ManagerError('INVALID_CONFIG', `the ${what} is wrong: ${problems.join('; ')}`, { cause: result.error });
}
