import { access } from 'node:fs/promises';
import { basename, dirname, join, relative } from 'node:path';
import { ManagerError } from '../errors.js';
import type { Engine, EngineOptions } from './engine.js';
import { sessionOptions } from './onnx-session-options.js';

/**
 * Loads a language model from a folder as the Hugging Face hub has them: config.json, tokenizer.json,
 * tokenizer_config.json, the ONNX file of a decoder, and generation_config.json where there is one. Nothing is fetched
 * from anywhere. What the model takes and returns is described at `TextGenerationModel`.
 *
 * The runtime is imported in here, so that only a thread that runs such a model pays for it.
 *
 * @throws ManagerError `SOURCE_INVALID` when a file is missing or the folder holds another kind of model,
 * `MODEL_LOAD_FAILED` when a file cannot be loaded. The error behind it is the `cause`.
 */
export const loadTransformersModel: Engine = async (options) => {
  const { modelId, folder, file, threads } = options;
  await assertFilesExist(options);

  const [library, { readModelFacts }, { TextGenerationModel }] = await explainFailure(
    `Model '${modelId}' needs the runtime @xenova/transformers, which cannot be imported; install the packages again`,
    Promise.all([
      import('@xenova/transformers'),
      import('./transformers/model-facts.js'),
      import('./transformers/text-generation-model.js'),
    ]),
  );
  const { AutoConfig, AutoModelForCausalLM, AutoTokenizer, LogLevel, env } = library;
  env.allowRemoteModels = false;
  env.useFSCache = false;
  // What it logs it throws as well, and with a run that fails it logs the whole prompt.
  env.logLevel = LogLevel.NONE;

  const load = <T>(name: string, loading: Promise<T>): Promise<T> =>
    explainFailure(
      `The ${name} of model '${modelId}' in ${folder} cannot be loaded; it may be damaged or cut short, so download ` +
        `or copy it again`,
      loading,
    );
  const config = await load('config.json', AutoConfig.from_pretrained(folder));
  if (!AutoModelForCausalLM.supports(String(config.model_type))) {
    throw noLanguageModel(options, `config.json says that it is of the type '${config.model_type}'`);
  }
  const tokenizer = await load('tokenizer.json or tokenizer_config.json', AutoTokenizer.from_pretrained(folder));
  const model = await load(
    relative(folder, file),
    AutoModelForCausalLM.from_pretrained(folder, {
      config,
      subfolder: relative(folder, dirname(file)),
      model_file_name: basename(file, '.onnx'),
      // Which file is settled: fp32 is the one type that adds nothing to its name, whatever type its weights have.
      dtype: 'fp32',
      device: 'cpu',
      // ONNX Runtime finds external data by itself; the library would wait for a missing file of it for ever.
      use_external_data_format: false,
      session_options: sessionOptions(threads),
    }),
  );
  const sessions: { outputNames: readonly string[] }[] = Object.values(model.sessions);
  if (!sessions.some(({ outputNames }) => outputNames.includes('logits'))) {
    await model.dispose();
    throw noLanguageModel(options, `${relative(folder, file)} has no output 'logits'`);
  }
  return new TextGenerationModel(modelId, model, tokenizer, readModelFacts(config, model, tokenizer));
};

async function assertFilesExist({ modelId, folder, file }: EngineOptions): Promise<void> {
  const names = ['config.json', 'tokenizer.json', 'tokenizer_config.json', relative(folder, file)];
  for (const name of names) {
    await access(join(folder, name)).catch((cause: unknown) => {
      throw new ManagerError(
        'SOURCE_INVALID',
        `The folder ${folder} of model '${modelId}' has no ${name} that can be read. The transformers engine needs ` +
          `${names.join(', ')}: download or copy what is missing, or choose another engine for the model.`,
        { cause },
      );
    });
  }
}

async function explainFailure<T>(explanation: string, loading: Promise<T>): Promise<T> {
  return loading.catch((cause: unknown) => {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ManagerError('MODEL_LOAD_FAILED', `${explanation}. The reason was: ${reason}`, { cause });
  });
}

function noLanguageModel({ modelId, folder }: EngineOptions, reason: string): ManagerError {
  return new ManagerError(
    'SOURCE_INVALID',
    `The transformers engine generates text, but model '${modelId}' in ${folder} is no language model that it can ` +
      `run: ${reason}. Choose another engine for it, such as onnx, or another model.`,
  );
}
