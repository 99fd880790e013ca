import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { ManagerError } from '../errors.js';
import { writeAtomically } from './atomic-write.js';
import { withLock } from './exclusive-lock.js';

const LockedFile = z.object({
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  /** Size in bytes. */
  bytes: z.int().min(0),
});

/** What a source was when it was first used. */
export const LockedModel = z.object({
  /** Of a source that is from the hub. */
  repository: z.string().optional(),
  /** Of a source that is from the hub. */
  commit: z
    .string()
    .regex(/^[0-9a-f]{40}$/)
    .optional(),
  /** By their paths in the source's folder, with `/`. */
  files: z.record(z.string(), LockedFile),
});
export type LockedModel = z.infer<typeof LockedModel>;

const Lockfile = z.object({ lockfileVersion: z.literal(1), models: z.record(z.string(), LockedModel) });
type Models = z.infer<typeof Lockfile>['models'];

/** Which lockfile is in use, and how strictly. */
export interface LockfileOptions {
  /** The path of the file, usually `splitlearn.lock`. */
  readonly path: string;
  /** Refuses whatever is not in the file, or differs, and never writes it. */
  readonly frozen: boolean;
}

/**
 * The name of a source in the lockfile: `source@revision`, or for a path the path as it was given.
 *
 * @param revision of a source that is from the hub.
 */
export function lockKey(source: string, revision?: string): string {
  return revision === undefined ? source : `${source}@${revision}`;
}

/**
 * What the lockfile says of a source; `undefined` where it says nothing yet.
 *
 * @throws ManagerError `LOCKFILE_MISMATCH` when it says nothing and is frozen; `INVALID_CONFIG` when it is no lockfile.
 */
export async function readLocked({ path, frozen }: LockfileOptions, key: string): Promise<LockedModel | undefined> {
  const locked = own(await readModels(path), key);
  if (!locked && frozen) {
    throw mismatch(path, key, 'there is no entry for it; run once without frozen, and look at what was added');
  }
  return locked;
}

/**
 * Compares what a source is with what the lockfile says, and adds what it does not say yet. A file of a local source
 * that has changed gets its new sha256, unless the lockfile is frozen; those of a commit cannot change.
 *
 * @throws ManagerError `LOCKFILE_MISMATCH` that names the file, what was wanted and what was found; `INVALID_CONFIG`
 * when it is no lockfile.
 */
export async function checkOrLock({ path, frozen }: LockfileOptions, key: string, found: LockedModel): Promise<void> {
  const compare = (models: Models) => merge(path, key, own(models, key), found, frozen);
  if (compare(await readModels(path)) === undefined) return;
  // Another process may have added something since: it is read again by whoever holds the lock.
  await withLock(`${path}.lock`, {}, async () => {
    const models = await readModels(path);
    const merged = compare(models);
    if (merged !== undefined) await writeAtomically(path, formatLockfile({ ...models, [key]: merged }));
  });
}

/** The text of a lockfile: the same for the same content, with one line for each thing that may change. */
export function formatLockfile(models: Readonly<Record<string, LockedModel>>): string {
  const sorted = sortedBy(models, ({ repository, commit, files }) => ({
    ...(repository !== undefined && { repository }),
    ...(commit !== undefined && { commit }),
    files: sortedBy(files, ({ sha256, bytes }) => ({ sha256, bytes })),
  }));
  return `${JSON.stringify({ lockfileVersion: 1, models: sorted }, undefined, 2)}\n`;
}

/** @throws ManagerError `INVALID_CONFIG` when it is no lockfile. */
export function parseLockfile(text: string, path: string): Record<string, LockedModel> {
  try {
    return Lockfile.parse(JSON.parse(text)).models;
  } catch (cause) {
    const reason = cause instanceof z.ZodError ? z.prettifyError(cause) : String(cause);
    throw new ManagerError(
      'INVALID_CONFIG',
      `${path} is no lockfile: ${reason}; take it from version control again, or delete it and have it written anew`,
      { cause },
    );
  }
}

/** @returns what to write, or `undefined` where all is said already. */
function merge(
  path: string,
  key: string,
  wanted: LockedModel | undefined,
  found: LockedModel,
  frozen: boolean,
): LockedModel | undefined {
  if (!wanted) {
    if (frozen) throw mismatch(path, key, 'there is no entry for it');
    return found;
  }
  for (const part of ['repository', 'commit'] as const) {
    if (wanted[part] === found[part]) continue;
    if (frozen) throw mismatch(path, key, `wanted the ${part} ${wanted[part]}, found ${found[part]}`);
    return found;
  }
  let changed = false;
  for (const [name, file] of Object.entries(found.files)) {
    const locked = own(wanted.files, name);
    if (locked?.sha256 === file.sha256 && locked.bytes === file.bytes) continue;
    if (locked && (frozen || found.commit !== undefined)) {
      throw mismatch(path, key, `its file '${name}' has changed: wanted ${show(locked)}, found ${show(file)}`);
    }
    if (frozen) throw mismatch(path, key, `its file '${name}' is not listed: wanted none, found ${show(file)}`);
    changed = true;
  }
  return changed ? { ...wanted, files: { ...wanted.files, ...found.files } } : undefined;
}

async function readModels(path: string): Promise<Models> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw new ManagerError('INVALID_CONFIG', `the lockfile ${path} cannot be read: ${error.message}`, { cause: error });
  });
  return text === undefined ? {} : parseLockfile(text, path);
}

function own<T>(record: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

function sortedBy<T, R>(record: Readonly<Record<string, T>>, map: (value: T) => R): Record<string, R> {
  const entries = Object.entries(record).sort(([one], [other]) => (one < other ? -1 : 1));
  return Object.fromEntries(entries.map(([key, value]) => [key, map(value)]));
}

function show({ sha256, bytes }: z.infer<typeof LockedFile>): string {
  return `sha256 ${sha256} (${bytes} bytes)`;
}

function mismatch(path: string, key: string, what: string): ManagerError {
  return new ManagerError(
    'LOCKFILE_MISMATCH',
    `the model '${key}' is not what the lockfile ${path} says: ${what}. Delete the file if it is damaged, so that it is ` +
      `fetched again; if the change is meant, delete the entry and load the model without frozen`,
  );
}
