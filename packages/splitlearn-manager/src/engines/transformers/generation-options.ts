import { inspect } from 'node:util';
import type { JsonValue } from '@splitlearn/comm/model';
import { z } from 'zod';
import { ManagerError } from '../../errors.js';

const MAX_STOP_STRINGS = 16;
const MAX_STOP_LENGTH = 256;

const stopString = z.string().min(1).max(MAX_STOP_LENGTH);

/** Each description is what a caller reads whose value is refused. */
const schema = z.strictObject({
  maxNewTokens: z.int().min(1).default(64).describe('an integer from 1, default 64'),
  temperature: z.number().min(0).default(0).describe('a number from 0, which is the default and means greedy'),
  topK: z.int().min(0).default(0).describe('an integer from 0, which is the default and means off'),
  topP: z.number().gt(0).max(1).default(1).describe('a number above 0 and up to 1, which is the default and means off'),
  repetitionPenalty: z.number().gt(0).default(1).describe('a number above 0, default 1, which means off'),
  seed: z.int().min(0).optional().describe(`an integer from 0 to ${Number.MAX_SAFE_INTEGER}, default random`),
  stop: z
    .union([stopString.transform((one) => [one]), z.array(stopString).max(MAX_STOP_STRINGS)])
    .default([])
    .describe(
      `a string of 1 to ${MAX_STOP_LENGTH} characters or an array of up to ${MAX_STOP_STRINGS} of them, default none`,
    ),
});

/**
 * How a text is generated, from the parameters of a request:
 *
 * - `maxNewTokens`: the most tokens to generate, from 1. Default 64. What is left of the model's context caps it.
 * - `temperature`: what the scores are divided by before a token is drawn, from 0. 0 always takes the most likely
 *   token, so `topK`, `topP` and `seed` make no difference then. Default 0, because the same request then has the same
 *   answer; models with a small vocabulary of phrases write better with about 0.8 and a `topK` of 40.
 * - `topK`: draw among this many most likely tokens only. Default 0: among all.
 * - `topP`: draw among the fewest most likely tokens only whose probabilities add up to this (those that `topK` leaves
 *   add up to 1), above 0 and up to 1. Default 1: among all.
 * - `repetitionPenalty`: makes tokens that the prompt or the text has already less likely (above 1) or more likely
 *   (below 1), above 0. Default 1: neither.
 * - `seed`: draws the same tokens every time, an integer from 0 to 2^53 − 1. Default: a random one.
 * - `stop`: the text ends before the first of these that it comes to. Default: none.
 *
 * Nothing but the request and these defaults decides: the sampling settings in a model's generation_config.json are
 * left aside, so that one request means the same to every model.
 */
export type GenerationOptions = z.output<typeof schema>;

/**
 * Checks the parameters of a request and fills in the defaults.
 *
 * @throws ManagerError `INVALID_INPUT` for an unknown parameter and for a value that is out of its range, naming all
 * the parameters there are.
 */
export function parseGenerationOptions(parameters: Readonly<Record<string, JsonValue>>): GenerationOptions {
  const result = schema.safeParse(parameters);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const known = Object.entries(schema.shape).map(([name, { description }]) => `'${name}' (${description})`);
  throw new ManagerError('INVALID_INPUT', `${complaint(issue, parameters)} The parameters are ${known.join(', ')}.`);
}

function complaint(issue: z.core.$ZodIssue | undefined, parameters: Readonly<Record<string, JsonValue>>): string {
  if (issue?.code === 'unrecognized_keys') return `There is no parameter '${issue.keys.join("', '")}'.`;
  const name = String(issue?.path[0]);
  const value = inspect(parameters[name], { depth: 1, maxArrayLength: 4, maxStringLength: 80, breakLength: Infinity });
  return `The parameter '${name}' cannot be ${value}.`;
}
