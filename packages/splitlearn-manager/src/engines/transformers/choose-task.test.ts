import { expect, it } from 'vitest';
import { managerError } from '../../../test/fixtures/tiny-gpt2.js';
import { chooseTask } from './choose-task.js';
import { TASK_ALIASES, TASKS } from './tasks.js';

const plain = { architectures: [] as string[], isLanguageModel: false, hasTokenizer: true };

it.each([
  ['GPT2LMHeadModel', 'text-generation'],
  ['LlamaForCausalLM', 'text-generation'],
  ['BertForSequenceClassification', 'text-classification'],
  ['DistilBertForTokenClassification', 'token-classification'],
  ['DistilBertForQuestionAnswering', 'question-answering'],
  ['RobertaForMaskedLM', 'fill-mask'],
  ['ViTForImageClassification', 'image-classification'],
  ['DetrForObjectDetection', 'object-detection'],
  ['SegformerForSemanticSegmentation', 'image-segmentation'],
  ['DPTForDepthEstimation', 'depth-estimation'],
  ['Wav2Vec2ForCTC', 'automatic-speech-recognition'],
  ['WhisperForConditionalGeneration', 'automatic-speech-recognition'],
  ['ASTForAudioClassification', 'audio-classification'],
  ['VisionEncoderDecoderModel', 'image-to-text'],
  ['T5ForConditionalGeneration', 'text2text-generation'],
  ['MarianMTModel', 'text2text-generation'],
  ['BertModel', 'feature-extraction'],
])('%s is made for %s', (architecture, task) => {
  expect(chooseTask('m', undefined, { ...plain, architectures: [architecture] })).toBe(task);
});

it('what has no architecture is told by its type, else by its files', () => {
  expect(chooseTask('m', undefined, { ...plain, isLanguageModel: true })).toBe('text-generation');
  expect(chooseTask('m', undefined, plain)).toBe('feature-extraction');
  expect(chooseTask('m', undefined, { ...plain, hasTokenizer: false })).toBe('image-feature-extraction');
});

it('what is asked for comes first, by any of its names', () => {
  const kind = { ...plain, architectures: ['GPT2LMHeadModel'], isLanguageModel: true };
  for (const name of Object.keys(TASKS)) expect(chooseTask('m', name, kind)).toBe(name);
  for (const [alias, name] of Object.entries(TASK_ALIASES)) expect(chooseTask('m', alias, kind)).toBe(name);
  for (const name of ['', 'toString', 'fill mask']) {
    expect(() => chooseTask('m', name, kind)).toThrow(
      managerError('INVALID_CONFIG', /unknown task .*fill-mask, .*text-generation/) as Error,
    );
  }
});
