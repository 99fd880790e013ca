import { ManagerError } from '../errors.js';
import type { ResolvedModelConfig } from '../models/model-config.js';

/** The ending that the exporters put behind a file's name for each type of weights, before `.onnx`. */
const SUFFIXES: Readonly<Record<NonNullable<ResolvedModelConfig['dtype']>, string>> = {
  fp32: '',
  fp16: '_fp16',
  q8: '_quantized',
  int8: '_int8',
  uint8: '_uint8',
  q4: '_q4',
  q4f16: '_q4f16',
  bnb4: '_bnb4',
};

/** What a model's main file is called, the best first; exports of 2023 have all of a decoder in the second. */
const MAIN_NAMES = ['model', 'decoder_model_merged'];

/** Beside the ONNX file, what the engine `transformers` reads. It never looks at vocab.json, merges.txt and their like. */
const TRANSFORMERS_FILES: ReadonlySet<string> = new Set([
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'preprocessor_config.json',
  'processor_config.json',
  'chat_template.json',
  'chat_template.jinja',
]);

/** What a configuration says about the files that it wants. */
export type FileWish = Pick<ResolvedModelConfig, 'source' | 'file' | 'dtype' | 'engine'>;

/** Which of a source's files make up the model. All paths are relative to the source's folder, with `/`. */
export interface ChosenFiles {
  readonly engine: 'onnx' | 'transformers' | 'module';
  /** The ONNX or JavaScript file. */
  readonly file: string;
  /** All that the engine reads, `file` included: external data, configuration and tokenizer. Sorted. */
  readonly files: readonly string[];
}

/**
 * Chooses among a source's files those of one model, by the naming of transformers.js: `onnx/model.onnx` or
 * `model.onnx`, with an ending for the type of the weights such as `_fp16` or `_quantized`.
 *
 * @param paths all files of the source, relative to its folder, with `/`.
 * @throws ManagerError `SOURCE_INVALID` when there is no such file, or several and nothing says which.
 */
export function chooseFiles(paths: readonly string[], wish: FileWish): ChosenFiles {
  const file = wish.file === undefined ? mainFile(paths, wish) : namedFile(paths, wish.file, wish);
  const engine = wish.engine ?? defaultEngine(paths, file);
  const companions = engine === 'transformers' ? paths.filter((path) => isCompanion(path, file)) : [];
  const withoutData = [file, ...companions];
  const data = paths.filter((path) => withoutData.some((owner) => isExternalData(path, owner)));
  return { engine, file, files: [...new Set([...withoutData, ...data])].sort() };
}

/** The ONNX files where models are looked for: in the source's folder and in its folder `onnx`. */
export function onnxFilesOf(paths: readonly string[]): string[] {
  return paths.filter((path) => /^(onnx\/)?[^/]+\.onnx$/.test(path));
}

/** Whether a file is a program rather than weights. */
export function isJavaScript(path: string): boolean {
  return /\.[cm]?js$/.test(path);
}

function defaultEngine(paths: readonly string[], file: string): ChosenFiles['engine'] {
  if (isJavaScript(file)) return 'module';
  return paths.includes('tokenizer.json') ? 'transformers' : 'onnx';
}

function namedFile(paths: readonly string[], file: string, { source }: FileWish): string {
  if (paths.includes(file)) return file;
  const others = onnxFilesOf(paths).join(', ') || 'none';
  throw invalid(source, `it has no file '${file}'; its ONNX files are: ${others}`);
}

function mainFile(paths: readonly string[], { source, dtype }: FileWish): string {
  const files = onnxFilesOf(paths);
  const suffix = SUFFIXES[dtype ?? 'fp32'];
  const usual = MAIN_NAMES.flatMap((name) => [`onnx/${name}${suffix}.onnx`, `${name}${suffix}.onnx`]);
  const found = usual.find((name) => files.includes(name));
  if (found !== undefined) return found;
  const [only] = files;
  if (only === undefined) {
    throw invalid(
      source,
      "there is no ONNX file in it or in its folder 'onnx'; download or export the model once more",
    );
  }
  // A lone file needs no choice, unless its name says that it is of another type than the one that was asked for.
  if (files.length === 1 && (dtype === undefined || !saysType(only))) return only;
  if (dtype !== undefined) {
    throw invalid(
      source,
      `it has no ONNX file of the type '${dtype}', such as ${usual[0]}; choose another 'dtype', or name one of its ` +
        `files with 'file': ${files.join(', ')}`,
    );
  }
  throw invalid(source, `it has several ONNX files; name one with 'file': ${files.join(', ')}`);
}

function saysType(path: string): boolean {
  const stem = path.slice(path.lastIndexOf('/') + 1, -'.onnx'.length);
  const suffixes = Object.values(SUFFIXES).filter((suffix) => suffix !== '');
  return MAIN_NAMES.includes(stem) || suffixes.some((suffix) => stem.endsWith(suffix));
}

function isCompanion(path: string, file: string): boolean {
  // A model that reads one text and writes another has its first half in a file of its own.
  return TRANSFORMERS_FILES.has(path) || path === file.replace('decoder_model_merged', 'encoder_model');
}

/** External data lies beside the file under the file's own name and an ending, by the exporters' convention. */
function isExternalData(path: string, file: string): boolean {
  return path.startsWith(file) && /^[_.]data(_\d+)?$/.test(path.slice(file.length));
}

function invalid(source: string, what: string): ManagerError {
  return new ManagerError('SOURCE_INVALID', `the source '${source}' cannot be loaded: ${what}`);
}
