import { ManagerError } from '../../errors.js';
import { withLock } from '../exclusive-lock.js';
import { type ChosenFiles, chooseFiles, type FileWish, onnxFilesOf } from '../file-choice.js';
import { isErrno, RepositoryCache } from './cache-layout.js';
import { downloadFile } from './download.js';
import { HubApi, type HubFile } from './hub-api.js';
import type { RequestSubject } from './hub-errors.js';
import { inParallel } from './in-parallel.js';
import { PartialFile } from './partial-file.js';
import { ProgressReporter, type ReportProgress } from './progress.js';
import { isCommit, isSafePath } from './repository-paths.js';
import { HubRequests } from './requests.js';
import type { HubRuntime } from './runtime.js';
import type { HubSettings } from './settings.js';

/** A model's files in the cache. */
export interface HubSnapshot {
  readonly commit: string;
  /** Absolute path of the folder with the files in it. */
  readonly folder: string;
  /** Which files the model is made of; absent where the hub could not be asked which there are. */
  readonly chosen?: ChosenFiles;
}

export interface SnapshotRequest {
  readonly repository: string;
  readonly revision: string;
  /** The commit to take whatever the revision is at by now. */
  readonly pinnedCommit?: string | undefined;
  readonly wish: FileWish;
  readonly settings: HubSettings;
  readonly runtime: HubRuntime;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ReportProgress | undefined;
}

/** Sees to it that a model's files are in the cache: those that it needs, and none that are there already. */
export async function fetchSnapshot(request: SnapshotRequest): Promise<HubSnapshot> {
  const { repository, revision, settings } = request;
  if (!isSafePath(revision)) {
    throw new ManagerError('INVALID_CONFIG', `'${revision}' is no name of a branch, a tag or a commit`);
  }
  const subject = { endpoint: settings.endpoint, repository, revision };
  const cache = new RepositoryCache(settings.cacheFolder, repository);
  const requests = new HubRequests(settings, request.runtime);
  try {
    return await fetchInto(cache, requests, subject, request);
  } catch (error) {
    throw explainDiskError(error, settings);
  }
}

async function fetchInto(
  cache: RepositoryCache,
  requests: HubRequests,
  subject: RequestSubject,
  request: SnapshotRequest,
): Promise<HubSnapshot> {
  const { wish, revision } = request;
  const api = new HubApi(requests);
  const commit = await findCommit(cache, api, subject, request);
  const folder = cache.snapshot(commit);
  const remembered = await cache.readListing(commit);
  const listing = remembered ?? (await listFiles(cache, api, subject, commit, request));
  // Without a list, what another program has downloaded is all that there is to choose from.
  if (!listing) {
    await cache.assertSafe(commit);
    return { commit, folder };
  }
  const paths = listing.map(({ path }) => path);
  if (wish.file !== undefined && !paths.includes(wish.file)) throw noSuchFile(subject, wish.file, paths);
  const chosen = chooseFiles(paths, wish);
  const files = listing.filter(({ path }) => chosen.files.includes(path));

  await download(cache, requests, subject, { commit, files }, request);
  for (const file of files) await cache.link(commit, file);
  if (!remembered) await ifPossible(cache.writeListing(commit, listing));
  if (commit !== revision && request.pinnedCommit === undefined) await ifPossible(cache.writeRef(revision, commit));
  return { commit, folder, chosen };
}

/** What is noted only saves requests: a cache with all files in it may well be one that cannot be written to. */
async function ifPossible(writing: Promise<void>): Promise<void> {
  await writing.catch((error: unknown) => {
    if (error instanceof ManagerError) throw error;
  });
}

/** The commit of a revision: as the hub says, or as it was when the hub could last be asked. */
async function findCommit(
  cache: RepositoryCache,
  api: HubApi,
  subject: RequestSubject,
  { revision, pinnedCommit, settings, signal }: SnapshotRequest,
): Promise<string> {
  if (pinnedCommit !== undefined) return pinnedCommit;
  if (isCommit(revision)) return revision;
  const known = await cache.readRef(revision);
  const usable = known !== undefined && (await cache.hasSnapshot(known)) ? known : undefined;
  if (settings.offline) {
    if (usable === undefined) throw offline(subject, 'the cache does not have it');
    return usable;
  }
  // With something to fall back on, one attempt is enough: nobody waits for a hub that is down to start a model.
  return api.commitOf(subject, signal, usable === undefined ? undefined : 1).catch((error: unknown) => {
    if (usable !== undefined && isUnavailable(error)) return usable;
    throw error;
  });
}

async function listFiles(
  cache: RepositoryCache,
  api: HubApi,
  subject: RequestSubject,
  commit: string,
  { settings, signal }: SnapshotRequest,
): Promise<HubFile[] | undefined> {
  const hasSnapshot = await cache.hasSnapshot(commit);
  if (settings.offline) {
    if (hasSnapshot) return undefined;
    throw offline(subject, `the cache does not have its commit ${commit}`);
  }
  return api.filesOf(subject, commit, signal, hasSnapshot ? 1 : undefined).catch((error: unknown) => {
    if (hasSnapshot && isUnavailable(error)) return undefined;
    throw error;
  });
}

async function download(
  cache: RepositoryCache,
  requests: HubRequests,
  subject: RequestSubject,
  { commit, files }: { readonly commit: string; readonly files: readonly HubFile[] },
  { settings, runtime, signal, onProgress }: SnapshotRequest,
): Promise<void> {
  const wanted = await missingOf(cache, commit, files);
  if (wanted.length === 0) return;
  if (settings.offline) {
    throw offline(subject, `the cache does not have ${wanted.map(({ path }) => `'${path}'`).join(', ')}`);
  }
  await assertFits(cache, wanted, settings, runtime);
  await withLock(cache.lock, { signal, clock: runtime.clock }, async (either) => {
    // Whoever had the lock before may have downloaded just these.
    const missing = await missingOf(cache, commit, files);
    const progress = new ProgressReporter(subject.repository, commit, missing, runtime.clock, onProgress);
    const fetchOne = (file: HubFile, each: AbortSignal) =>
      downloadFile(requests, {
        ...{ subject, commit, file, signal: each, blob: cache.blob(file) },
        onBytes: (bytes) => progress.received(file, bytes),
      }).then(() => progress.finished(file));
    // A large file takes all connections by itself, so those come one after the other.
    const isSmall = ({ size }: HubFile) => size <= runtime.rangeBytes;
    await inParallel(missing.filter(isSmall), runtime.parallel, either, fetchOne);
    await inParallel(
      missing.filter((file) => !isSmall(file)),
      1,
      either,
      fetchOne,
    );
  });
}

/** Files of the same content have one blob, and are fetched once. */
async function missingOf(cache: RepositoryCache, commit: string, files: readonly HubFile[]): Promise<HubFile[]> {
  const missing = new Map<string, HubFile>();
  for (const file of files) if (!(await cache.has(commit, file))) missing.set(file.etag, file);
  return [...missing.values()];
}

/** @throws ManagerError `INSUFFICIENT_DISK` before a byte is written. */
async function assertFits(
  cache: RepositoryCache,
  files: readonly HubFile[],
  { cacheFolder }: HubSettings,
  { freeBytes, rangeBytes }: HubRuntime,
): Promise<void> {
  const present = await Promise.all(files.map((file) => PartialFile.bytesOnDisk(cache.blob(file))));
  const missing = files.reduce((sum, { size }, index) => sum + Math.max(size - (present[index] ?? 0), 0), 0);
  // While a range is moved to the beginning of its file, its bytes are there twice.
  const needed = missing + (files.some(({ size }) => size > rangeBytes) ? rangeBytes : 0);
  const free = await freeBytes(cacheFolder);
  if (needed <= free) return;
  throw new ManagerError(
    'INSUFFICIENT_DISK',
    `'${cache.repository}' takes ${needed} bytes more on the disk of ${cacheFolder}, which has ${free} left; delete what ` +
      `is not needed any more, set HF_HUB_CACHE to a folder on a larger disk, or choose a smaller 'dtype'`,
  );
}

function explainDiskError(error: unknown, { cacheFolder }: HubSettings): unknown {
  if (isErrno(error, 'ENOSPC', 'EDQUOT')) {
    return new ManagerError(
      'INSUFFICIENT_DISK',
      `the disk of ${cacheFolder} has become full while the model was downloaded; what is there is kept, so make room ` +
        `and load the model again, or set HF_HUB_CACHE to a folder on a larger disk`,
      { cause: error },
    );
  }
  if (isErrno(error, 'EACCES', 'EPERM', 'EROFS', 'ENOTDIR', 'ELOOP', 'EISDIR')) {
    return new ManagerError(
      'SOURCE_UNAVAILABLE',
      `the cache ${cacheFolder} cannot be used: ${error.message}; make it writable, or set HF_HUB_CACHE to another folder`,
      { cause: error },
    );
  }
  return error;
}

function isUnavailable(error: unknown): boolean {
  return error instanceof ManagerError && error.code === 'SOURCE_UNAVAILABLE';
}

function noSuchFile({ repository, revision }: RequestSubject, file: string, paths: readonly string[]): ManagerError {
  return new ManagerError(
    'SOURCE_NOT_FOUND',
    `the repository '${repository}' has no file '${file}' at the revision '${revision}'; its ONNX files are: ` +
      `${onnxFilesOf(paths).join(', ') || 'none'}`,
  );
}

function offline({ repository, revision }: RequestSubject, why: string): ManagerError {
  return new ManagerError(
    'SOURCE_UNAVAILABLE',
    `'${repository}' at the revision '${revision}' cannot be had: HF_HUB_OFFLINE forbids to ask the hub, and ${why}; ` +
      `unset HF_HUB_OFFLINE once to download it, or copy the cache from a machine that has it`,
  );
}
