import { z } from 'zod';
import { ManagerError } from './errors.js';

/** Checks a configuration against its schema and fills in the defaults. */
export function parseConfig<Schema extends z.ZodType>(schema: Schema, config: unknown, what: string): z.output<Schema> {
  const result = schema.safeParse(config);
  if (result.success) return result.data;
  throw new ManagerError('INVALID_CONFIG', `the ${what} is wrong: ${z.prettifyError(result.error)}`, {
    cause: result.error,
  });
}
