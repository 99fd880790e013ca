import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, relative, resolve, sep } from 'node:path';
import { ManagerError } from '../errors.js';
import type { ResolvedModelConfig } from '../models/model-config.js';
import { CATALOG } from './catalog.js';

/** A model that has been found on disk. */
export interface LocatedModel {
  readonly modelId: string;
  readonly engine: 'onnx' | 'transformers' | 'module';
  /** Absolute path of the model's folder. */
  readonly folder: string;
  /** Absolute path of the ONNX file. */
  readonly file: string;
  /** Size of the ONNX file and its external data, in bytes. */
  readonly fileBytes: number;
  /** The commit that its files are of, where it is from the hub. */
  readonly revision?: string;
  /** One sha256 over those of all its files, where they are known: see lockfile.ts. */
  readonly digest?: string;
}

/**
 * Finds a model's files.
 *
 * @throws ManagerError `SOURCE_NOT_FOUND` when nothing is there; `SOURCE_INVALID` when what is there is no model, or
 * the file is outside the source's folder.
 */
export async function locateModel(config: ResolvedModelConfig): Promise<LocatedModel> {
  const { source } = config;
  const path = Object.hasOwn(CATALOG, source) ? (CATALOG[source] as string) : resolve(source);
  const found = await stat(path).catch(() => undefined);
  if (!found) throw notFound(source, path);
  if (found.isFile() && config.file !== undefined) {
    throw new ManagerError(
      'INVALID_CONFIG',
      `the source '${source}' is a file already; leave 'file' out, or name its folder as the source`,
    );
  }
  const folder = await realpath(found.isFile() ? dirname(path) : path);
  const file = found.isFile() ? join(folder, basename(path)) : await findFile(folder, config.file, source);
  const engine = config.engine ?? (found.isDirectory() && (await hasTokenizer(folder)) ? 'transformers' : 'onnx');
  const modelId = config.modelId ?? (Object.hasOwn(CATALOG, source) ? source : basename(path).replace(/\.onnx$/, ''));
  return { modelId, engine, folder, file, fileBytes: await sizeWithExternalData(file) };
}

async function findFile(folder: string, wanted: string | undefined, source: string): Promise<string> {
  if (wanted !== undefined) return fileInside(folder, wanted, source);
  const files = await onnxFiles(folder);
  const usual = [join('onnx', 'model.onnx'), 'model.onnx'].find((name) => files.includes(name));
  const [only] = files;
  if (usual !== undefined) return fileInside(folder, usual, source);
  if (only !== undefined && files.length === 1) return fileInside(folder, only, source);
  if (only !== undefined) throw invalid(source, `it has several ONNX files; name one with 'file': ${files.join(', ')}`);
  throw invalid(source, "there is no ONNX file in it or in its folder 'onnx'; download or export the model once more");
}

/** The path of a file that neither '..' nor a symbolic link leads out of the source to. */
async function fileInside(folder: string, name: string, source: string): Promise<string> {
  const file = join(folder, name);
  const target = await realpath(file).catch(() => undefined);
  if (!target || !(await stat(target)).isFile()) {
    const files = (await onnxFiles(folder)).join(', ') || 'none';
    throw invalid(source, `it has no file '${name}'; its ONNX files are: ${files}`);
  }
  const way = relative(rootOf(folder), target);
  if (way.split(sep)[0] === '..' || isAbsolute(way) || !join(folder, name).startsWith(folder + sep)) {
    throw invalid(source, `its file '${name}' lies outside of it; copy the file into the folder`);
  }
  return file;
}

/**
 * What belongs to a source. In the hub's own cache a snapshot's files are links into the repository's `blobs`
 * (https://huggingface.co/docs/huggingface_hub/guides/manage-cache), so there it is the whole repository.
 */
function rootOf(folder: string): string {
  const repository = dirname(dirname(folder));
  return basename(dirname(folder)) === 'snapshots' && basename(repository).startsWith('models--') ? repository : folder;
}

async function hasTokenizer(folder: string): Promise<boolean> {
  return (await stat(join(folder, 'tokenizer.json')).catch(() => undefined)) !== undefined;
}

async function onnxFiles(folder: string): Promise<string[]> {
  const names = await Promise.all(
    ['', 'onnx'].map(async (part) =>
      (await readdir(join(folder, part)).catch(() => [])).map((name) => join(part, name)),
    ),
  );
  return names.flat().filter((name) => name.endsWith('.onnx'));
}

/** External data lies beside the file under the file's own name and an ending, by the exporters' convention. */
async function sizeWithExternalData(file: string): Promise<number> {
  const names = (await readdir(dirname(file))).filter((name) => name.startsWith(basename(file)));
  const found = await Promise.all(names.map((name) => stat(join(dirname(file), name)).catch(() => undefined)));
  return found.reduce((sum, stats) => sum + (stats?.size ?? 0), 0);
}

function notFound(source: string, path: string): ManagerError {
  return new ManagerError(
    'SOURCE_NOT_FOUND',
    `there is no model '${source}': it is no name of the catalogue (${Object.keys(CATALOG).join(', ')}), and there is ` +
      `no file or folder ${path}; check the spelling, or give the path of an ONNX file or of a model's folder`,
  );
}

function invalid(source: string, what: string): ManagerError {
  return new ManagerError('SOURCE_INVALID', `the source '${source}' cannot be loaded: ${what}`);
}
