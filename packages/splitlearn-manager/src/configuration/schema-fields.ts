import type { z } from 'zod';

/** The way to a field: names of fields and indices of lists. */
export type FieldPath = readonly PropertyKey[];

/** What a schema is underneath its defaults, options and transformations. */
function bare(schema: z.core.$ZodType): z.core.$ZodTypes {
  const { def } = (schema as z.core.$ZodTypes)._zod;
  switch (def.type) {
    case 'default':
    case 'prefault':
    case 'optional':
    case 'nonoptional':
    case 'nullable':
    case 'readonly':
    case 'catch':
      return bare(def.innerType);
    case 'lazy':
      return bare(def.getter());
    case 'pipe': {
      // Of a preprocessing it is the schema behind it that has fields, of a transformation the one before.
      const first = bare(def.in);
      return first._zod.def.type === 'transform' ? bare(def.out) : first;
    }
    default:
      return schema as z.core.$ZodTypes;
  }
}

/** The fields that an object may have; of alternatives, those of all. `undefined` for what has none. */
export function fieldsOf(schema: z.core.$ZodType): Readonly<Record<string, z.core.$ZodType>> | undefined {
  const { def } = bare(schema)._zod;
  if (def.type === 'object') return def.shape;
  if (def.type !== 'union') return undefined;
  const all = def.options.map(fieldsOf).filter((fields) => fields !== undefined);
  return all.length > 0 ? Object.assign({}, ...all) : undefined;
}

/** The schema of what is at a path; of alternatives, the first that has it. */
export function schemaAt(schema: z.core.$ZodType, path: FieldPath): z.core.$ZodType | undefined {
  const [name, ...rest] = path;
  if (name === undefined) return schema;
  const { def } = bare(schema)._zod;
  if (def.type === 'array') return schemaAt(def.element, rest);
  if (def.type === 'record') return schemaAt(def.valueType, rest);
  if (def.type === 'union') {
    for (const option of def.options) {
      const found = schemaAt(option, path);
      if (found) return found;
    }
    return undefined;
  }
  const field = fieldsOf(schema)?.[String(name)];
  return field && schemaAt(field, rest);
}

/** How a field's value is written as one text. */
type TextKind = 'text' | 'number' | 'boolean' | 'list';

/** One value that can be set from outside of the file. */
export interface Setting {
  readonly path: readonly string[];
  readonly kind: TextKind;
}

/** All values of an object and of the objects in it, but for maps with names of the user's own. */
export function settingsOf(schema: z.core.$ZodType, path: readonly string[] = []): Setting[] {
  return Object.entries(fieldsOf(schema) ?? {}).flatMap(([name, field]) => {
    const own = [...path, name];
    if (bare(field)._zod.def.type === 'object') return settingsOf(field, own);
    const kind = textKind(field);
    return kind ? [{ path: own, kind }] : [];
  });
}

/** A value that was written as one text; where the text is no such value, the text, for the schema to refuse. */
export function fromText(text: string, kind: TextKind): unknown {
  const trimmed = text.trim();
  switch (kind) {
    case 'text':
      return text;
    case 'number':
      return trimmed === '' || Number.isNaN(Number(trimmed)) ? text : Number(trimmed);
    case 'boolean':
      if (/^(true|1)$/i.test(trimmed)) return true;
      return /^(false|0)$/i.test(trimmed) ? false : text;
    case 'list':
      return trimmed === '' ? [] : trimmed.split(',').map((part) => part.trim());
  }
}

function textKind(schema: z.core.$ZodType): TextKind | undefined {
  const { def } = bare(schema)._zod;
  switch (def.type) {
    case 'string':
    case 'enum':
      return 'text';
    case 'number':
      return 'number';
    case 'boolean':
      return 'boolean';
    case 'array':
      return 'list';
    case 'union': {
      const [first] = def.options;
      return first && textKind(first);
    }
    default:
      return undefined;
  }
}
