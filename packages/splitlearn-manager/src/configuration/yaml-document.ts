import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument, visit } from 'yaml';
import type { FieldPath } from './schema-fields.js';

/** A place in a file, both from 1. */
interface Place {
  readonly line: number;
  readonly column: number;
}

/** Something that is wrong with a file before anybody looks at its fields. */
interface SyntaxProblem extends Place {
  readonly path: FieldPath;
  readonly message: string;
}

/** A file in YAML, or in JSON, which is YAML too. */
export interface YamlDocument {
  /** What it says, with variables in their place. `undefined` where it cannot be read at all. */
  readonly data: unknown;
  readonly problems: readonly SyntaxProblem[];
  /** Whether the problems leave anything that is worth a look at its fields. */
  readonly readable: boolean;
  /** Where a field's value is; of one that is missing, where it would have to be. */
  placeOf(path: FieldPath): Place;
  /** Where a field's name is. */
  placeOfName(path: FieldPath): Place;
  /** Whether a value was given by a variable, `${NAME}`. */
  isFromVariable(path: FieldPath): boolean;
}

/** The parser's own messages quote what they are about, which may be a token. */
const MESSAGES: Readonly<Record<string, string>> = {
  ALIAS_PROPS: 'an alias (*name) cannot have an anchor or a tag',
  BAD_ALIAS: 'this alias (*name) is written wrongly; a text that begins with * needs quotes',
  BAD_COLLECTION_TYPE: 'this is not what its tag (!…) says',
  BAD_DIRECTIVE: 'a line that begins with % is not understood here; a text that begins with % needs quotes',
  BAD_DQ_ESCAPE: 'a \\ in "…" begins an escape that is not known; write \\\\, or use single quotes',
  BAD_INDENT: 'this line is indented in another way than those it belongs to, or a bracket before it is not closed',
  BAD_PROP_ORDER: 'anchors (&name) and tags (!…) stand before the value',
  BAD_SCALAR_START: 'a text cannot begin with @ or `; put it in quotes',
  BLOCK_AS_IMPLICIT_KEY: 'there is a second `name: value` in one line; begin a new line, or put the value in quotes',
  BLOCK_IN_FLOW: 'there is a list or map over several lines in brackets; write it in brackets too',
  DUPLICATE_KEY: 'is there twice; the names of a map differ',
  IMPOSSIBLE: 'this is not understood',
  KEY_OVER_1024_CHARS: 'this name is longer than 1024 characters; a quote or a colon may be missing',
  MISSING_CHAR: 'a closing quote, bracket, comma, colon or space is missing',
  MULTILINE_IMPLICIT_KEY: 'a colon is missing after a name, or a closing quote',
  MULTIPLE_ANCHORS: 'a value has one anchor (&name) at most',
  MULTIPLE_DOCS: 'a second document begins here (---); a configuration file has one',
  MULTIPLE_TAGS: 'a value has one tag (!…) at most',
  NON_STRING_KEY: 'the name of a field must be text',
  TAB_AS_INDENT: 'there is a tab in the indentation; use spaces',
  TAG_RESOLVE_FAILED: 'tags (!…) are not understood here; a text that begins with ! needs quotes',
  UNEXPECTED_TOKEN: 'this is not understood here; a quote, bracket or comma may be missing or too many',
};

const UNQUOTED_VARIABLE = `between braces or brackets, \${NAME} needs quotes: "\${NAME}"`;

/**
 * Reads a file's text, and puts the environment's variables where it says `${NAME}`; `$${` stands for `${` itself.
 * Never throws, and never tells a value.
 */
export function parseYaml(text: string, environment: NodeJS.ProcessEnv): YamlDocument {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    stringKeys: true,
    logLevel: 'error',
  });
  const placeAt = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line: Math.max(line, 1), column: Math.max(col, 1) };
  };
  const problems = syntaxProblems(document, text, placeAt);
  const readable = document.errors.every(({ code }) => code === 'DUPLICATE_KEY');
  const from = substitute(document, environment, (node, message) => {
    problems.push({ path: pathOf(document, node), message, ...placeAt(node.range?.[0] ?? 0) });
  });
  const find = (path: FieldPath) => locate(document, path);
  const shared = {
    placeOf: (path: FieldPath) => placeAt(find(path).offset),
    placeOfName: (path: FieldPath) => placeAt(find(path).nameOffset),
    isFromVariable: (path: FieldPath) => from.has(find(path).node as Node),
  };
  try {
    const data: unknown = document.toJS();
    JSON.stringify(data); // throws where an anchor is part of itself
    return { data, problems, readable, ...shared };
  } catch {
    const message = 'its aliases (*name) have no anchor (&name) before them, are part of themselves, or are too many';
    return {
      data: undefined,
      problems: [...problems, { path: [], message, line: 1, column: 1 }],
      readable: false,
      ...shared,
    };
  }
}

function syntaxProblems(document: Document, text: string, placeAt: (offset: number) => Place): SyntaxProblem[] {
  const problems: SyntaxProblem[] = [];
  const seen = new Set<number>();
  for (const { code, pos } of [...document.errors, ...document.warnings]) {
    const [offset] = pos;
    const place = placeAt(offset);
    // What comes after it in a line follows of the first.
    if (seen.has(place.line)) continue;
    seen.add(place.line);
    const name = code === 'DUPLICATE_KEY' ? (/^["']?([\w.-]+)/.exec(text.slice(offset))?.[1] ?? '') : '';
    const message = text.startsWith('${', offset - 1) ? UNQUOTED_VARIABLE : (MESSAGES[code] ?? MESSAGES.IMPOSSIBLE);
    problems.push({ path: name ? [name] : [], message: message ?? '', ...place });
  }
  return problems;
}

/** @returns the values that had variables in them. */
function substitute(
  document: Document,
  environment: NodeJS.ProcessEnv,
  report: (node: Node, message: string) => void,
): ReadonlySet<Node> {
  const changed = new Set<Node>();
  visit(document, {
    Scalar(key, node) {
      const { value } = node;
      if (key === 'key' || typeof value !== 'string' || !value.includes('${')) return;
      changed.add(node);
      node.value = value.replace(/\$?\$\{([^}]*)(\}?)/g, (found, name: string, end: string) => {
        if (found.startsWith('$$')) return found.slice(1);
        if (end === '' || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
          report(
            node,
            `has a \${ that is no \${NAME} of an environment variable; write $\${ for the characters themselves`,
          );
        } else if (environment[name] === undefined) {
          report(node, `needs the environment variable ${name}, which is not set`);
        }
        return environment[name] ?? found;
      });
    },
  });
  return changed;
}

interface Found {
  readonly node: unknown;
  readonly offset: number;
  readonly nameOffset: number;
}

/** Goes along a path as far as there is one. */
function locate(document: Document, path: FieldPath): Found {
  let node: unknown = document.contents;
  let offset = startOf(node, 0);
  let nameOffset = offset;
  for (const part of path) {
    if (isAlias(node)) node = node.resolve(document);
    if (isMap(node)) {
      const pair = node.items.findLast(({ key }) => String(isScalar(key) ? key.value : key) === String(part));
      // Of a name that is there twice the last counts. What is missing is missing in what was found last.
      if (!pair) return { node: undefined, offset: nameOffset, nameOffset };
      node = pair.value;
      nameOffset = startOf(pair.key, nameOffset);
      offset = isScalar(node) && node.value === null ? nameOffset : startOf(node, nameOffset);
    } else if (isSeq(node)) {
      node = node.items[Number(part)];
      offset = startOf(node, offset);
      nameOffset = offset;
    } else {
      return { node: undefined, offset, nameOffset };
    }
  }
  return { node, offset, nameOffset };
}

function startOf(node: unknown, otherwise: number): number {
  return (node as Node | null | undefined)?.range?.[0] ?? otherwise;
}

/** The way to a node, for a message about it. */
function pathOf(document: Document, wanted: Node): FieldPath {
  let found: FieldPath = [];
  visit(document, (key, node, ancestors) => {
    if (node !== wanted) return;
    const parts: PropertyKey[] = [];
    for (const [index, ancestor] of ancestors.entries()) {
      const inner = ancestors[index + 1] ?? node;
      if (isSeq(ancestor)) parts.push(ancestor.items.indexOf(inner as never));
      else if (isMap(ancestor)) parts.push(String((inner as { key: unknown }).key));
    }
    found = parts;
    void key;
    return visit.BREAK;
  });
  return found;
}
