import { readlink, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { ManagerError } from '../errors.js';
import type { ResolvedModelConfig } from '../models/model-config.js';
import { CATALOG } from './catalog.js';
import { digestOf, type FileHash, hashFile } from './file-hashes.js';
import type { DownloadProgress } from './hub/progress.js';
import { isRepository } from './hub/repository-paths.js';
import { type HubRuntime, systemRuntime } from './hub/runtime.js';
import { readHubSettings } from './hub/settings.js';
import { fetchSnapshot } from './hub/snapshot.js';
import { type LocalModel, type LocatedModel, locateLocal, pathOf } from './local.js';
import { checkOrLock, type LockedModel, type LockfileOptions, lockKey, readLocked } from './lockfile.js';

export interface LocateOptions {
  /** Told now and then how far a download is. */
  readonly onProgress?: (progress: DownloadProgress) => void;
  /** Stops a download; what was received is kept, and the next one goes on from there. */
  readonly signal?: AbortSignal;
  /** Holds models to the files that they had when they were first used. Default: none. */
  readonly lockfile?: LockfileOptions;
  /** Where the hub's variables (`HF_HOME` and others) are read. Default `process.env`. */
  readonly environment?: NodeJS.ProcessEnv;
}

/**
 * Finds a model's files, and downloads those that are not on this machine. A source is looked for as a name of the
 * catalogue, as a file or folder, and as a repository of the hub, in this order.
 *
 * @param runtime what downloading takes from the machine; tests have their own.
 * @throws ManagerError `SOURCE_NOT_FOUND` when nothing is there; `SOURCE_INVALID` when what is there is no model, or
 * would lead out of its folder; `SOURCE_ACCESS_DENIED`, `SOURCE_UNAVAILABLE`, `SOURCE_CORRUPT` and `INSUFFICIENT_DISK`
 * of a download; `LOCKFILE_MISMATCH`; `INVALID_CONFIG`. The signal's reason when it is aborted.
 */
export async function locateModel(
  config: ResolvedModelConfig,
  options: LocateOptions = {},
  runtime: HubRuntime = systemRuntime,
): Promise<LocatedModel> {
  const { source } = config;
  const entry = CATALOG.get(source);
  if (entry) {
    const named = { ...config, modelId: config.modelId ?? source };
    const located = await ('folder' in entry
      ? locateOnDisk(named, entry.folder, options)
      : locateInHub(named, entry.repository, options, runtime));
    return { ...located, task: entry.task };
  }
  const path = pathOf(source);
  const isPath = /^[.~]/.test(source) || isAbsolute(source) || (await exists(path));
  if (isPath || !isRepository(source)) return locateOnDisk(config, path, options);
  return locateInHub({ ...config, modelId: config.modelId ?? source }, source, options, runtime);
}

async function locateOnDisk(config: ResolvedModelConfig, path: string, options: LocateOptions): Promise<LocatedModel> {
  const { lockfile } = options;
  const key = lockKey(config.source);
  if (lockfile) await readLocked(lockfile, key);
  const model = await locateLocal(config, path);
  if (!lockfile) return model.located;
  const files = await hashAll(model, false, options);
  await checkOrLock(lockfile, key, { files });
  return { ...model.located, digest: digestOf(files) };
}

async function locateInHub(
  config: ResolvedModelConfig,
  repository: string,
  options: LocateOptions,
  runtime: HubRuntime,
): Promise<LocatedModel> {
  const { lockfile, signal, onProgress, environment = process.env } = options;
  if (config.engine === 'module') {
    throw new ManagerError(
      'SOURCE_INVALID',
      `the source '${config.source}' is a repository of the hub, and no program of another's is ever run from there; ` +
        `download the JavaScript file, read it, and give its path`,
    );
  }
  const revision = config.revision ?? 'main';
  const key = lockKey(config.source, revision);
  const locked = lockfile && (await readLocked(lockfile, key));
  const snapshot = await fetchSnapshot({
    ...{ repository, revision, wish: config, signal, onProgress, runtime },
    pinnedCommit: locked?.repository === repository ? locked.commit : undefined,
    settings: await readHubSettings(environment),
  });
  const { commit, folder, chosen } = snapshot;
  const exact = chosen ? { file: chosen.file, engine: chosen.engine } : {};
  const model = await locateLocal({ ...config, ...exact }, folder).catch((error: unknown) => {
    throw chosen ? error : incomplete(error, repository);
  });
  // What the hub lists settles which files count: the folder may hold others from earlier on.
  const counted = { ...model, files: chosen?.files ?? model.files };
  const files = await hashAll(counted, lockfile === undefined, options);
  if (lockfile) await checkOrLock(lockfile, key, { repository, commit, files });
  return { ...model.located, revision: commit, digest: digestOf(files) };
}

/**
 * The hashes of a model's files.
 *
 * @param trust whether what was checked when it was downloaded is believed. Not with a lockfile: a file may have
 * changed since.
 */
async function hashAll(
  { located, files }: LocalModel,
  trust: boolean,
  { environment = process.env, signal }: LocateOptions,
): Promise<LockedModel['files']> {
  const hashes: LockedModel['files'] = {};
  for (const path of files) {
    const file = join(located.folder, path);
    hashes[path] = (trust && (await hashOfBlob(file))) || (await hashFile(file, environment, signal));
  }
  return hashes;
}

/** What the name of a blob in the hub's cache says: that of a large file is its sha256. */
async function hashOfBlob(path: string): Promise<FileHash | undefined> {
  const target = await readlink(path).catch(() => '');
  const name = basename(target);
  if (basename(dirname(target)) !== 'blobs' || !/^[0-9a-f]{64}$/.test(name)) return undefined;
  return { sha256: name, bytes: (await stat(path)).size };
}

/** What another program has left in the cache is no model by itself, and the hub could not be asked for the rest. */
function incomplete(error: unknown, repository: string): unknown {
  if (!(error instanceof ManagerError) || error.code !== 'SOURCE_INVALID') return error;
  return new ManagerError(
    'SOURCE_UNAVAILABLE',
    `the cache has not all that '${repository}' needs, and the hub cannot be asked (HF_HUB_OFFLINE is set, or it is out ` +
      `of reach): ${error.message}`,
    { cause: error },
  );
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
