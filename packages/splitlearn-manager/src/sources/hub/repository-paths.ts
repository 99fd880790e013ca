import { join, relative, sep } from 'node:path';
import { ManagerError } from '../../errors.js';

/** Whether a source is written as a repository of the hub: `org/name`. */
export function isRepository(source: string): boolean {
  const part = /^[A-Za-z0-9_]([\w.-]{0,94}[A-Za-z0-9_])?$/;
  const [organization, name, ...more] = source.split('/');
  if (organization === undefined || name === undefined || more.length > 0) return false;
  // `--` stands for `/` in the names of the cache's folders.
  return part.test(organization) && part.test(name) && !/--|\.\./.test(source);
}

/** Whether a string is a commit's id rather than the name of a branch or a tag. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}

/**
 * Whether a path, of a file or of a revision's name, stays below the folder that it is joined to, on each system.
 * What comes from the hub becomes a path on this machine, so nothing but plain names with `/` between is believed.
 */
export function isSafePath(path: string): boolean {
  if (path === '' || path.length > 1024) return false;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  if (/[\\:\u0000-\u001f\u007f]/.test(path)) return false;
  return path.split('/').every((part) => part !== '' && part !== '.' && part !== '..');
}

/** @throws ManagerError `SOURCE_INVALID` for a path that could lead anywhere else. */
export function assertSafePath(path: string, repository: string): void {
  if (isSafePath(path)) return;
  throw new ManagerError(
    'SOURCE_INVALID',
    `the repository '${repository}' is refused: its path ${JSON.stringify(path.slice(0, 200))} could lead out of the ` +
      `cache's folder; do not use this repository, or the server that offers it`,
  );
}

/**
 * Whether a file is one of those that newer versions of the Python library keep once for all repositories of the
 * cache, in `blobs/<2 digits>/<hash>`; a repository's own blob is then a link to it.
 *
 * @param target absolute, with no links in it; so is `cacheFolder`.
 */
export function isSharedBlob(cacheFolder: string, target: string): boolean {
  const way = relative(join(cacheFolder, 'blobs'), target).split(sep).join('/');
  return /^([0-9a-f]{2})\/\1[0-9a-f]{62}$/.test(way);
}
