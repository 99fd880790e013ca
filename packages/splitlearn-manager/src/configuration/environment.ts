import { closest } from './closest.js';
import { type FieldPath, fromText, type Setting } from './schema-fields.js';

/** Every variable of this program begins so. */
const PREFIX = 'SPLITLEARN_';

/** The variable that names the configuration file. */
export const FILE_VARIABLE = 'SPLITLEARN_CONFIG';

/** A value that is put over that of the file. */
export interface Override {
  readonly path: FieldPath;
  readonly value: unknown;
  /** Where it is from: `SPLITLEARN_PORT`, `--port`. */
  readonly source: string;
}

/**
 * The variable of a field: `SPLITLEARN_`, and the field's name in capitals with a `_` between its words, those of a
 * field in another one after the other's. `maxModels` is `SPLITLEARN_MAX_MODELS`, `admin.port` `SPLITLEARN_ADMIN_PORT`.
 */
export function variableOf(path: FieldPath): string {
  return PREFIX + words(path).join('_').toUpperCase();
}

/** The flag of a field: `--max-models`, `--admin-port`. */
export function flagOf(path: FieldPath): string {
  return `--${words(path).join('-').toLowerCase()}`;
}

/**
 * What the environment says of the settings: numbers, `true` or `false` (or 1 and 0), lists with commas between. An empty
 * variable is one that is not set, as in a compose file.
 *
 * @param others variables that have another meaning, and are not wrong.
 */
export function readEnvironment(
  environment: NodeJS.ProcessEnv,
  settings: readonly Setting[],
  others: readonly string[] = [],
): { readonly overrides: readonly Override[]; readonly warnings: readonly string[] } {
  const byName = new Map(settings.map((setting) => [variableOf(setting.path), setting]));
  const overrides: Override[] = [];
  const warnings: string[] = [];
  for (const name of Object.keys(environment).sort()) {
    const text = environment[name];
    if (!name.startsWith(PREFIX) || text === undefined || text === '') continue;
    if (name === FILE_VARIABLE || others.includes(name) || isServiceLink(name, text)) continue;
    const setting = byName.get(name);
    if (setting) overrides.push({ path: setting.path, value: fromText(text, setting.kind), source: name });
    else warnings.push(unknown(name, [...byName.keys(), FILE_VARIABLE, ...others]));
  }
  return { overrides, warnings };
}

/**
 * Kubernetes tells every container of every service, as Docker once did: a service called `splitlearn` makes
 * `SPLITLEARN_PORT=tcp://10.0.0.1:50051` and others (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables).
 */
function isServiceLink(name: string, text: string): boolean {
  return /^(tcp|udp|sctp):\/\//.test(text) || /^SPLITLEARN_(SERVICE_(HOST|PORT)|PORT_\d+_)/.test(name);
}

function unknown(name: string, known: readonly string[]): string {
  // Their common beginning would make any two of them alike.
  const meant = closest(
    name.slice(PREFIX.length),
    known.map((other) => other.slice(PREFIX.length)),
  );
  const hint = meant === undefined ? '' : `; did you mean ${PREFIX}${meant}?`;
  return `the environment variable ${name} means nothing here${hint}`;
}

function words(path: FieldPath): string[] {
  return path.flatMap((part) => String(part).split(/(?=[A-Z])/));
}
