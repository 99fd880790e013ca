import { lstat, readdir, realpath, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { ManagerError } from '../errors.js';
import type { ResolvedModelConfig } from '../models/model-config.js';
import { CATALOG } from './catalog.js';
import { externalDataBytes } from './external-data.js';
import { type ChosenFiles, chooseFiles, isJavaScript } from './file-choice.js';
import { isSharedBlob } from './hub/repository-paths.js';

/** A model that has been found on disk. */
export interface LocatedModel {
  readonly modelId: string;
  readonly engine: 'onnx' | 'transformers' | 'module';
  /** Absolute path of the model's folder. */
  readonly folder: string;
  /** Absolute path of the ONNX or JavaScript file. */
  readonly file: string;
  /** Size of that file and its external data, in bytes. */
  readonly fileBytes: number;
  /** What a model of the catalogue does, by the task's name in transformers.js; the configuration may say otherwise. */
  readonly task?: string;
  /** The commit that its files are of, where it is from the hub. */
  readonly revision?: string;
  /** One sha256 over those of all its files, where they are known: see lockfile.ts. */
  readonly digest?: string;
}

/** A model on disk, and which of the files in its folder it is made of. */
export interface LocalModel {
  readonly located: LocatedModel;
  /** All files that the engine reads, relative to the folder, with `/`. */
  readonly files: readonly string[];
}

/** The absolute path that a source means, `~` being the home of whoever runs the program. */
export function pathOf(source: string, home = homedir()): string {
  return /^~($|[/\\])/.test(source) ? join(home, source.slice(1)) : resolve(source);
}

/**
 * Finds a model's files in a folder or as a single file.
 *
 * @param path absolute.
 * @throws ManagerError `SOURCE_NOT_FOUND` when nothing is there; `SOURCE_INVALID` when what is there is no model, or
 * a file is outside the source's folder.
 */
export async function locateLocal(config: ResolvedModelConfig, path: string): Promise<LocalModel> {
  const { source } = config;
  const found = await stat(path).catch(() => undefined);
  if (!found) throw notFound(source, path);
  if (found.isFile() && config.file !== undefined) {
    throw new ManagerError(
      'INVALID_CONFIG',
      `the source '${source}' is a file already; leave 'file' out, or name its folder as the source`,
    );
  }
  const folder = await realpath(found.isFile() ? dirname(path) : path);
  const chosen = found.isFile()
    ? await chooseSingle(folder, basename(path), config)
    : await chooseInside(folder, [rootOf(folder), await realpath(rootOf(path))], config);
  const file = join(folder, chosen.file);
  const modelId = config.modelId ?? basename(path).replace(/\.(onnx|[cm]?js)$/, '');
  const fileBytes = await sizeWithExternalData(file);
  return { located: { modelId, engine: chosen.engine, folder, file, fileBytes }, files: chosen.files };
}

/** A file that is named as the source is taken as it is; what lies beside it matters to the engine alone. */
async function chooseSingle(folder: string, name: string, config: ResolvedModelConfig): Promise<ChosenFiles> {
  const engine = config.engine ?? (isJavaScript(name) ? 'module' : 'onnx');
  return chooseFiles([...new Set([name, ...(await filesIn(folder))])], { source: config.source, file: name, engine });
}

/** @param roots what belongs to the source, as seen from where the folder really is, and from where it was looked for. */
async function chooseInside(
  folder: string,
  roots: readonly string[],
  config: ResolvedModelConfig,
): Promise<ChosenFiles> {
  if (config.file !== undefined) await assertInside(folder, roots, config.file, config.source);
  const listed = await filesIn(folder);
  const named = config.file === undefined ? [] : [config.file.split(sep).join('/')];
  const chosen = chooseFiles([...new Set([...listed, ...named])], {
    source: config.source,
    ...(named[0] !== undefined && { file: named[0] }),
    ...(config.dtype !== undefined && { dtype: config.dtype }),
    ...(config.engine !== undefined && { engine: config.engine }),
  });
  for (const file of chosen.files) await assertInside(folder, roots, file, config.source);
  return chosen;
}

/** Refuses a file that `..` or a symbolic link leads out of the source to, and one that is not there. */
async function assertInside(folder: string, roots: readonly string[], name: string, source: string): Promise<void> {
  const target = await realpath(join(folder, name)).catch(() => undefined);
  if (!target || !(await stat(target)).isFile()) {
    const files = (await filesIn(folder)).filter((file) => file.endsWith('.onnx')).join(', ') || 'none';
    throw invalid(source, `it has no file '${name}'; its ONNX files are: ${files}`);
  }
  if (!roots.some((root) => belongsTo(root, target)) || !join(folder, name).startsWith(folder + sep)) {
    throw invalid(source, `its file '${name}' lies outside of it; copy the file into the folder`);
  }
}

function belongsTo(root: string, target: string): boolean {
  const way = relative(root, target);
  const isBelow = way.split(sep)[0] !== '..' && !isAbsolute(way);
  return isBelow || (basename(root).startsWith('models--') && isSharedBlob(dirname(root), target));
}

/**
 * What belongs to a source. In the hub's own cache a snapshot's files are links into the repository's `blobs`
 * (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so there it is the whole repository.
 */
function rootOf(folder: string): string {
  const repository = dirname(dirname(folder));
  return basename(dirname(folder)) === 'snapshots' && basename(repository).startsWith('models--') ? repository : folder;
}

/** What lies in the folder and in its folder `onnx`, links included wherever they lead. */
async function filesIn(folder: string): Promise<string[]> {
  const names = await Promise.all(
    ['', 'onnx/'].map(async (part) => (await readdir(join(folder, part)).catch(() => [])).map((name) => part + name)),
  );
  const found = names.flat().sort();
  const isFolder = await Promise.all(
    found.map((name) =>
      lstat(join(folder, name)).then(
        (stats) => stats.isDirectory(),
        () => true,
      ),
    ),
  );
  return found.filter((_, index) => !isFolder[index]);
}

async function sizeWithExternalData(file: string): Promise<number> {
  const { size } = await stat(file);
  return file.endsWith('.onnx') ? size + (await externalDataBytes(file)) : size;
}

function notFound(source: string, path: string): ManagerError {
  return new ManagerError(
    'SOURCE_NOT_FOUND',
    `there is no model '${source}': it is no name of the catalogue (${[...CATALOG.keys()].join(', ')}), no repository ` +
      `of the hub (org/name), and there is no file or folder ${path}; check the spelling, or give the path of an ONNX ` +
      `file or of a model's folder`,
  );
}

function invalid(source: string, what: string): ManagerError {
  return new ManagerError('SOURCE_INVALID', `the source '${source}' cannot be loaded: ${what}`);
}
