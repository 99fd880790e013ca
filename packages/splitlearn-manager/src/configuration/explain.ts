import type { z } from 'zod';
import { closest } from './closest.js';
import { type FieldPath, fieldsOf, schemaAt } from './schema-fields.js';

/** One thing that is wrong with a configuration. */
export interface Problem {
  /** The field that is wrong; for an unknown one, itself. */
  readonly path: FieldPath;
  /** What is wrong, and what is allowed. It never has a value in it: that might be a token. */
  readonly message: string;
  /** It is the name that is wrong, and not the value. */
  readonly aboutName?: boolean;
}

/** Everything that a schema has to say about a configuration, in words for whoever wrote it. */
export function explain(schema: z.core.$ZodType, config: unknown, error: z.core.$ZodError): Problem[] {
  return error.issues.flatMap((issue) => explainIssue(schema, config, issue));
}

/** A path as people write it: `models[2].keepAliveMs`. */
export function pathToText(path: FieldPath): string {
  const text = path.map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`)).join('');
  return text.replace(/^\./, '');
}

/** `did you mean 'port'?`, or all there are where none is near. */
export function suggest(name: string, known: readonly string[]): string {
  const meant = closest(name, known);
  return meant === undefined ? `known are: ${known.join(', ')}` : `did you mean '${meant}'?`;
}

/** What is at a path; `undefined` where nothing is. */
export function valueAt(config: unknown, path: FieldPath): unknown {
  let value = config;
  for (const part of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return undefined;
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  return value;
}

function explainIssue(schema: z.core.$ZodType, config: unknown, issue: z.core.$ZodIssue): Problem[] {
  const { path } = issue;
  const value = valueAt(config, path);
  switch (issue.code) {
    case 'invalid_type':
      return [{ path, message: wrongType(issue.expected, value) }];
    case 'unrecognized_keys': {
      const at = schemaAt(schema, path);
      const known = Object.keys((at && fieldsOf(at)) ?? {});
      return issue.keys.map((name) => ({
        path: [...path, name],
        message: `is unknown; ${suggest(name, known)}`,
        aboutName: true,
      }));
    }
    case 'invalid_value': {
      if (value === undefined) return [{ path, message: `is missing; it must be ${oneOf(issue.values)}` }];
      const meant = typeof value === 'string' ? closest(value, issue.values.map(String)) : undefined;
      return [
        { path, message: `must be ${oneOf(issue.values)}${meant === undefined ? '' : `; did you mean ${meant}?`}` },
      ];
    }
    case 'too_small':
      return [{ path, message: tooSmall(issue) }];
    case 'too_big':
      return [
        { path, message: `must be ${issue.inclusive ? 'at most' : 'less than'} ${amount(issue, issue.maximum)}` },
      ];
    case 'invalid_union': {
      const chosen = bestAlternative(issue.errors);
      if (!chosen) return [{ path, message: issue.message }];
      return chosen.flatMap((inner) => explainIssue(schema, config, { ...inner, path: [...path, ...inner.path] }));
    }
    default:
      return [
        { path, message: value === undefined && path.length > 0 ? `is missing; it ${issue.message}` : issue.message },
      ];
  }
}

const EXPECTED: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a map of fields',
  record: 'a map of names',
};

function wrongType(expected: string, value: unknown): string {
  const wanted = EXPECTED[expected] ?? expected;
  if (value === undefined) return `is missing; it must be ${wanted}`;
  if (value === null) return `has no value; it must be ${wanted}, or be left out`;
  const hint = expected === 'string' && typeof value !== 'object' ? '; put it in quotes' : '';
  return `must be ${wanted}; it is ${kindOf(value)}${hint}`;
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  switch (typeof value) {
    case 'string':
      return value === '' ? 'empty' : 'text';
    case 'number':
      if (Number.isFinite(value)) return Number.isInteger(value) ? 'a number' : 'a fraction';
      return Number.isNaN(value) ? 'not a number' : 'infinite';
    case 'boolean':
      return 'true or false';
    case 'object':
      return 'a map of fields';
    default:
      return `a ${typeof value}`;
  }
}

function oneOf(values: readonly unknown[]): string {
  const texts = values.map(String);
  return texts.length === 1 ? String(texts[0]) : `one of ${texts.join(', ')}`;
}

function tooSmall(issue: z.core.$ZodIssueTooSmall): string {
  const { origin, minimum, inclusive } = issue;
  if (minimum === 1 && inclusive && (origin === 'string' || origin === 'array')) return 'must not be empty';
  return `must be ${inclusive ? 'at least' : 'more than'} ${amount(issue, minimum)}`;
}

function amount({ origin }: { readonly origin: string }, limit: number | bigint): string {
  if (origin === 'string') return `${limit} characters long`;
  return origin === 'array' ? `${limit} items long` : String(limit);
}

/** The alternative that came farthest is what was meant; of equals, the first. */
function bestAlternative(alternatives: readonly (readonly z.core.$ZodIssue[])[]) {
  const depth = (issues: readonly z.core.$ZodIssue[]) => {
    const unknownNames = issues.some(({ code }) => code === 'unrecognized_keys');
    return Math.max(...issues.map(({ path }) => path.length)) + (unknownNames ? 0.5 : 0);
  };
  return [...alternatives].sort((one, other) => depth(other) - depth(one))[0];
}
