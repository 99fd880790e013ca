import { basename, dirname, relative } from 'node:path';
import type * as Library from '@xenova/transformers';
import { ManagerError } from '../../errors.js';
import type { EngineOptions } from '../engine.js';
import { sessionOptions } from '../onnx-session-options.js';
import { type Pipeline, PipelineModel } from './pipeline-model.js';
import { TASKS, type Task } from './tasks.js';

/** Names the part of the model that is loaded where that fails. */
export type Load = <T>(name: string, loading: Promise<T>) => Promise<T>;

/** How the names of files end, by the type of their weights. */
const DTYPES: Readonly<Record<string, Library.DataType>> = {
  fp16: 'fp16',
  quantized: 'q8',
  int8: 'int8',
  uint8: 'uint8',
  q4: 'q4',
  q4f16: 'q4f16',
  bnb4: 'bnb4',
};

/** Loads a model for a task, and what prepares its inputs. */
export async function loadPipeline(
  library: typeof Library,
  options: EngineOptions,
  { taskName, config, load }: { taskName: string; config: Library.PretrainedConfig; load: Load },
): Promise<PipelineModel> {
  const { modelId, folder, file } = options;
  const task = TASKS[taskName] as Task;
  const architecture = String(config.model_type);
  const name = task.models.find((one) => library[one].supports(architecture));
  if (!name) {
    throw new ManagerError(
      'SOURCE_INVALID',
      `model '${modelId}' in ${folder} cannot do the task '${taskName}': config.json says that it is of the type ` +
        `'${architecture}', which transformers.js does not know for it. Choose another task, or the engine onnx.`,
    );
  }
  const [tokenizer, processor] = await Promise.all([
    task.tokenizer && load('tokenizer.json or tokenizer_config.json', library.AutoTokenizer.from_pretrained(folder)),
    task.processor && load('preprocessor_config.json', library.AutoProcessor.from_pretrained(folder, {})),
  ]);
  const model = await load(
    relative(folder, file),
    library[name].from_pretrained(folder, modelOptions(options, config)),
  );
  const Pipeline = library[task.pipeline] as unknown as new (parts: object) => Pipeline;
  const parts = { task: taskName, model, ...(tokenizer && { tokenizer }), ...(processor && { processor }) };
  return new PipelineModel({ modelId, taskName, task, architecture, pipeline: new Pipeline(parts), library });
}

/** How the library is told which file to load, and to fetch nothing. */
export function modelOptions(options: EngineOptions, config: Library.PretrainedConfig) {
  const { folder, file } = options;
  const name = basename(file, '.onnx');
  const [, part, ending = ''] = /^((?:encoder|decoder|vision|audio|text|embed)_.*?)(?:_([a-z0-9]+))?$/.exec(name) ?? [];
  const several = part !== undefined && !name.startsWith('decoder_');
  return {
    config,
    subfolder: relative(folder, dirname(file)),
    // Which file is settled: fp32 is the one type that adds nothing to its name, whatever type its weights have. A model
    // of several files has names of its own for them; of those, `file` is one, and its ending is that of all.
    ...(several ? { dtype: DTYPES[ending] ?? 'fp32' } : { model_file_name: name, dtype: 'fp32' as const }),
    // The device is among the session's options. Here the library would refuse the number of a device.
    device: 'cpu' as const,
    // ONNX Runtime finds external data by itself; the library would wait for a missing file of it for ever.
    use_external_data_format: false,
    session_options: sessionOptions(options),
  };
}
