import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { readHubSettings } from '../sources/hub/settings.js';

/** A repository that the cache has, or a part of it. */
export interface CachedRepository {
  /** `org/name`. */
  readonly repository: string;
  /** What it takes on the disk. */
  readonly bytes: number;
  /** Branches and tags that were looked up. */
  readonly revisions: readonly string[];
  /** Whether it has a file that ONNX Runtime can load. */
  readonly onnx: boolean;
  /** Whether a download of it has not ended. */
  readonly incomplete: boolean;
}

/** What is in the cache of the Hugging Face hub, whoever downloaded it. @see RepositoryCache for how it is laid out. */
export async function listCache(
  env: NodeJS.ProcessEnv,
): Promise<{ readonly cacheFolder: string; readonly repositories: readonly CachedRepository[] }> {
  const { cacheFolder } = await readHubSettings(env);
  const names = (await readdir(cacheFolder).catch(() => [])).filter((name) => name.startsWith('models--')).sort();
  const repositories = await Promise.all(names.map((name) => describe(join(cacheFolder, name), name)));
  return { cacheFolder, repositories };
}

async function describe(folder: string, name: string): Promise<CachedRepository> {
  const [blobs, snapshots, refs] = (await Promise.all(
    ['blobs', 'snapshots', 'refs'].map((part) => filesBelow(join(folder, part))),
  )) as [string[], string[], string[]];
  const incomplete = blobs.some((file) => file.endsWith('.incomplete'));
  return {
    repository: name.slice('models--'.length).replace('--', '/'),
    bytes: await folderBytes(folder),
    revisions: refs.map((file) => file.slice(join(folder, 'refs').length + 1)).sort(),
    onnx: snapshots.some((file) => file.endsWith('.onnx')),
    incomplete,
  };
}

/** What the files of a folder take, in bytes. Links count for nothing: what they lead to is counted where it is. */
export async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  for (const file of await filesBelow(folder)) {
    const stats = await lstat(file).catch(() => undefined);
    if (stats?.isFile()) bytes += stats.size;
  }
  return bytes;
}

/** All files and links below a folder; links are not followed, so that a circle of them has an end. */
async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const found = await Promise.all(
    entries.map((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? filesBelow(path) : [path];
    }),
  );
  return found.flat();
}
