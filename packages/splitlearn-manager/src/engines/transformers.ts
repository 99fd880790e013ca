import { access } from 'node:fs/promises';
import { join, relative } from 'node:path';
import type { PretrainedConfig } from '@xenova/transformers';
import { ManagerError } from '../errors.js';
import type { Engine, EngineOptions } from './engine.js';
import { deviceError } from './onnx-errors.js';
import { chooseTask } from './transformers/choose-task.js';
import type { Load } from './transformers/load-pipeline.js';
import { TASKS } from './transformers/tasks.js';

/**
 * Loads a model for a task of transformers.js from a folder as the Hugging Face hub has them: config.json, the ONNX
 * file, tokenizer.json and tokenizer_config.json for text, preprocessor_config.json for images and audio, and
 * generation_config.json where there is one. Nothing is fetched from anywhere.
 *
 * Without a `task` it is what the model's architecture says, as `chooseTask` does. What a model takes and returns is
 * described at `TextGenerationModel` for `text-generation`, and in tasks.ts, pipeline-inputs.ts and pipeline-outputs.ts
 * for all others.
 *
 * The runtime is imported in here, so that only a thread that runs such a model pays for it.
 *
 * @throws ManagerError `INVALID_CONFIG` for a task that there is not, `SOURCE_INVALID` when a file is missing or the
 * folder holds another kind of model, `DEVICE_UNAVAILABLE` when the device is not there, `MODEL_LOAD_FAILED` when a file
 * cannot be loaded. The error behind it is the `cause`.
 */
export const loadTransformersModel: Engine = async (options) => {
  const { modelId, folder, file, task: wanted } = options;
  await assertFilesExist(options, ['config.json', relative(folder, file)]);

  const [library, { loadPipeline }] = await explainFailure(
    `Model '${modelId}' needs the runtime @xenova/transformers, which cannot be imported; install the packages again`,
    Promise.all([import('@xenova/transformers'), import('./transformers/load-pipeline.js')]),
  );
  const { AutoConfig, AutoModelForCausalLM, LogLevel, env } = library;
  env.allowRemoteModels = false;
  env.useFSCache = false;
  // What it logs it throws as well, and with a run that fails it logs the whole prompt.
  env.logLevel = LogLevel.NONE;

  const load: Load = (name, loading) =>
    explainFailure(
      `The ${name} of model '${modelId}' in ${folder} cannot be loaded; it may be damaged or cut short, so download ` +
        `or copy it again`,
      loading.catch((error: unknown) => {
        throw deviceError(options, error) ?? error;
      }),
    );
  const config = await load('config.json', AutoConfig.from_pretrained(folder));
  const { architectures } = config as { architectures?: unknown };
  const taskName = chooseTask(modelId, wanted, {
    architectures: Array.isArray(architectures) ? architectures.map(String) : [],
    isLanguageModel: AutoModelForCausalLM.supports(String(config.model_type)),
    hasTokenizer: await exists(join(folder, 'tokenizer.json')),
  });
  const task = TASKS[taskName];
  await assertFilesExist(options, [
    ...(!task || task.tokenizer ? ['tokenizer.json', 'tokenizer_config.json'] : []),
    ...(task?.processor ? ['preprocessor_config.json'] : []),
  ]);
  if (!task) return loadTextGeneration(options, config, load);
  const model = await loadPipeline(library, options, { taskName, config, load });
  if (options.warmup ?? true) await model.warmUp();
  return model;
};

async function loadTextGeneration(options: EngineOptions, config: PretrainedConfig, load: Load) {
  const { modelId, folder, file } = options;
  const [{ AutoModelForCausalLM, AutoTokenizer }, { modelOptions }, { readModelFacts }, { TextGenerationModel }] =
    await Promise.all([
      import('@xenova/transformers'),
      import('./transformers/load-pipeline.js'),
      import('./transformers/model-facts.js'),
      import('./transformers/text-generation-model.js'),
    ]);
  if (!AutoModelForCausalLM.supports(String(config.model_type))) {
    throw noLanguageModel(options, `config.json says that it is of the type '${config.model_type}'`);
  }
  const tokenizer = await load('tokenizer.json or tokenizer_config.json', AutoTokenizer.from_pretrained(folder));
  const loading = AutoModelForCausalLM.from_pretrained(folder, modelOptions(options, config));
  const model = await load(relative(folder, file), loading);
  const sessions: { outputNames: readonly string[] }[] = Object.values(model.sessions);
  if (!sessions.some(({ outputNames }) => outputNames.includes('logits'))) {
    await model.dispose();
    throw noLanguageModel(options, `${relative(folder, file)} has no output 'logits'`);
  }
  const generator = new TextGenerationModel(modelId, model, tokenizer, readModelFacts(config, model, tokenizer));
  if (options.warmup ?? true) await generator.warmUp();
  return generator;
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function assertFilesExist({ modelId, folder }: EngineOptions, names: readonly string[]): Promise<void> {
  for (const name of names) {
    await access(join(folder, name)).catch((cause: unknown) => {
      throw new ManagerError(
        'SOURCE_INVALID',
        `The folder ${folder} of model '${modelId}' has no ${name} that can be read, which the transformers engine ` +
          'needs: download or copy what is missing, or choose another engine for the model.',
        { cause },
      );
    });
  }
}

async function explainFailure<T>(explanation: string, loading: Promise<T>): Promise<T> {
  return loading.catch((cause: unknown) => {
    if (cause instanceof ManagerError) throw cause;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ManagerError('MODEL_LOAD_FAILED', `${explanation}. The reason was: ${reason}`, { cause });
  });
}

function noLanguageModel({ modelId, folder }: EngineOptions, reason: string): ManagerError {
  return new ManagerError(
    'SOURCE_INVALID',
    `The task text-generation generates text, but model '${modelId}' in ${folder} is no language model that can be ` +
      `run: ${reason}. Choose another task or engine for it, such as onnx, or another model.`,
  );
}
