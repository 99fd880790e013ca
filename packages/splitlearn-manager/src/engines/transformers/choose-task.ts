import { ManagerError } from '../../errors.js';
import { TASK_ALIASES, TASKS } from './tasks.js';

/** What the end of an architecture's name in config.json says that the model was made for. The first that fits holds. */
const ARCHITECTURES: readonly (readonly [RegExp, string])[] = [
  [/(ForCausalLM|LMHeadModel)$/, 'text-generation'],
  [/ForSequenceClassification$/, 'text-classification'],
  [/ForTokenClassification$/, 'token-classification'],
  [/ForQuestionAnswering$/, 'question-answering'],
  [/ForMaskedLM$/, 'fill-mask'],
  [/ForImageClassification$/, 'image-classification'],
  [/ForObjectDetection$/, 'object-detection'],
  [/ForDepthEstimation$/, 'depth-estimation'],
  [/Segmentation$/, 'image-segmentation'],
  [/For(Audio|Speech)Classification$/, 'audio-classification'],
  [/ForCTC$|^(Whisper|Moonshine)ForConditionalGeneration$/, 'automatic-speech-recognition'],
  [/^VisionEncoderDecoderModel$/, 'image-to-text'],
  [/^(T5|MT5|Bart|MBart|M2M100|Marian|Pegasus|LongT5)(ForConditionalGeneration|MTModel)$/, 'text2text-generation'],
];

/** What can be said of a model without loading it. */
export interface ModelKind {
  /** Its `architectures` in config.json. */
  readonly architectures: readonly string[];
  /** Whether its type is one of language models, where `architectures` does not say. */
  readonly isLanguageModel: boolean;
  readonly hasTokenizer: boolean;
}

/**
 * The task that a model is loaded for: the one that is asked for, else the one that its architecture is made for, else
 * the features that it finds in text or images.
 *
 * @throws ManagerError `INVALID_CONFIG`, naming all tasks, for one that there is not.
 */
export function chooseTask(modelId: string, wanted: string | undefined, kind: ModelKind): string {
  if (wanted !== undefined) {
    const task = Object.hasOwn(TASK_ALIASES, wanted) ? TASK_ALIASES[wanted] : wanted;
    if (task === 'text-generation' || Object.hasOwn(TASKS, task as string)) return task as string;
    const names = ['text-generation', ...Object.keys(TASKS)].sort().join(', ');
    throw new ManagerError(
      'INVALID_CONFIG',
      `model '${modelId}' has the unknown task '${wanted}'; tasks are: ${names}`,
    );
  }
  const [architecture = ''] = kind.architectures;
  const made = ARCHITECTURES.find(([pattern]) => pattern.test(architecture))?.[1];
  if (made !== undefined) return made;
  if (kind.isLanguageModel) return 'text-generation';
  return kind.hasTokenizer ? 'feature-extraction' : 'image-feature-extraction';
}
