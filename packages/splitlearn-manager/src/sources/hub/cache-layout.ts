import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, realpath, rename, rm, stat, symlink } from 'node:fs/promises';
import { dirname, isAbsolute, join, relative, sep } from 'node:path';
import { z } from 'zod';
import { ManagerError } from '../../errors.js';
import { writeAtomically } from '../atomic-write.js';
import { HubFile } from './hub-api.js';
import { isCommit, isSafePath, isSharedBlob } from './repository-paths.js';

/**
 * A repository's folder in the cache, laid out as Python's huggingface_hub does it
 * (https://huggingface.co/docs/hub/local-cache), so that either uses what the other has downloaded:
 *
 * - `blobs/<etag>`: the files' bytes;
 * - `snapshots/<commit>/<path>`: the files by their names, as links to the blobs;
 * - `refs/<branch or tag>`: the commit that it was at when it was last looked up.
 *
 * Ours alone, and ignored by others: `.splitlearn/<commit>.json`, the list of the commit's files.
 */
export class RepositoryCache {
  readonly repository: string;
  readonly #folder: string;
  readonly #lock: string;

  /** @param cacheFolder absolute; need not exist. */
  constructor(cacheFolder: string, repository: string) {
    const name = `models--${repository.replace('/', '--')}`;
    this.repository = repository;
    this.#folder = join(cacheFolder, name);
    this.#lock = join(cacheFolder, '.locks', name, 'splitlearn.lock');
  }

  get folder(): string {
    return this.#folder;
  }

  /** The file that keeps two processes from downloading the same; Python's locks cannot be had from here. */
  get lock(): string {
    return this.#lock;
  }

  blob({ etag }: HubFile): string {
    return join(this.#folder, 'blobs', etag);
  }

  snapshot(commit: string): string {
    return join(this.#folder, 'snapshots', commit);
  }

  async hasSnapshot(commit: string): Promise<boolean> {
    return (await readdir(this.snapshot(commit)).catch(() => [])).length > 0;
  }

  /**
   * Looks at all files of a snapshot that another program has made.
   *
   * @throws ManagerError `SOURCE_INVALID` for one that a link leads out of the repository's folder to.
   */
  async assertSafe(commit: string): Promise<void> {
    const folder = this.snapshot(commit);
    await this.#assertInside(folder);
    for (const name of await readdir(folder, { recursive: true })) await this.#assertInside(join(folder, name));
  }

  /** The commit that a branch or a tag was at when it was last looked up. */
  async readRef(revision: string): Promise<string | undefined> {
    const content = await readFile(join(this.#folder, 'refs', revision), 'utf8').catch(() => '');
    return isCommit(content.trim()) ? content.trim() : undefined;
  }

  async writeRef(revision: string, commit: string): Promise<void> {
    if ((await this.readRef(revision)) === commit) return;
    const path = join(this.#folder, 'refs', revision);
    await this.#assertInside(dirname(path));
    await writeAtomically(path, commit);
  }

  /** The files of a commit, as they were once listed by the hub: a commit never changes. */
  async readListing(commit: string): Promise<HubFile[] | undefined> {
    const content = await readFile(this.#listing(commit), 'utf8').catch(() => undefined);
    if (content === undefined) return undefined;
    try {
      const files = z.array(HubFile).parse(JSON.parse(content));
      return files.every(({ path }) => isSafePath(path)) ? files : undefined;
    } catch {
      return undefined; // damaged: it is fetched again
    }
  }

  async writeListing(commit: string, files: readonly HubFile[]): Promise<void> {
    await this.#assertInside(dirname(this.#listing(commit)));
    await writeAtomically(this.#listing(commit), JSON.stringify(files));
  }

  /**
   * Whether the cache has a file.
   *
   * @throws ManagerError `SOURCE_INVALID` for one that a link leads out of the repository's folder to.
   */
  async has(commit: string, file: HubFile): Promise<boolean> {
    const target = await this.#assertInside(join(this.snapshot(commit), file.path));
    if (target !== undefined && (await isFileOf(target, file.size))) return true;
    return this.#hasBlob(file);
  }

  /** Gives a file its name in a commit's snapshot. */
  async link(commit: string, file: HubFile): Promise<void> {
    const path = join(this.snapshot(commit), file.path);
    const target = await this.#assertInside(path);
    if (target !== undefined && (await isFileOf(target, file.size))) return;
    await this.#assertInside(dirname(path));
    await mkdir(dirname(path), { recursive: true });
    // Made aside and then renamed: a link that is broken is replaced, and another process never finds none.
    const temporary = `${path}.${randomUUID()}.tmp`;
    const blob = this.blob(file);
    try {
      await symlink(relative(dirname(path), blob), temporary).catch(async (error: unknown) => {
        // Windows lets ordinary users make no links, and some file systems have none.
        if (!isErrno(error, 'EPERM', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP', 'EINVAL')) throw error;
        await copyFile(blob, temporary);
      });
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  }

  async #hasBlob(file: HubFile): Promise<boolean> {
    const target = await this.#assertInside(this.blob(file));
    return target !== undefined && (await isFileOf(target, file.size));
  }

  /** @returns what a path really is, or `undefined` where nothing is yet; then the folder that it will be in is looked at. */
  async #assertInside(path: string): Promise<string | undefined> {
    const root = await realpath(this.#folder).catch(() => undefined);
    if (root === undefined) return undefined;
    const target = await realpath(path).catch(() => undefined);
    if (target === undefined) {
      if (dirname(path).length >= this.#folder.length) await this.#assertInside(dirname(path));
      return undefined;
    }
    const way = relative(root, target);
    if (way.split(sep)[0] !== '..' && !isAbsolute(way)) return target;
    if (isSharedBlob(await realpath(dirname(this.#folder)), target)) return target;
    throw new ManagerError(
      'SOURCE_INVALID',
      `the cache of '${this.repository}' is refused: ${path} is a link out of the repository's folder; delete ${this.#folder}, ` +
        `and it is downloaded again`,
    );
  }

  #listing(commit: string): string {
    return join(this.#folder, '.splitlearn', `${commit}.json`);
  }
}

/** Whether an error is one of the system's, of one of some codes. */
export function isErrno(error: unknown, ...codes: string[]): error is NodeJS.ErrnoException {
  return error instanceof Error && 'code' in error && codes.includes(String(error.code));
}

async function isFileOf(path: string, size: number): Promise<boolean> {
  const stats = await stat(path).catch(() => undefined);
  return stats?.isFile() === true && stats.size === size;
}
