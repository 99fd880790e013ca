import type * as Library from '@xenova/transformers';

/** An input of a task. `text`, `question`, `context` and `candidate_labels` are strings, `image` and `audio` are not. */
export type TaskInput = 'text' | 'question' | 'context' | 'candidate_labels' | 'image' | 'audio';

/** What becomes of a task's results: see pipeline-outputs.ts. */
export type TaskOutput = 'json' | 'labels' | 'texts' | 'embedding' | 'boxes' | 'masks' | 'image' | 'depth' | 'audio';

/** How a task of transformers.js is loaded and called. */
export interface Task {
  /** The class of its pipeline. */
  readonly pipeline: keyof typeof Library & `${string}Pipeline`;
  /** The classes of its model; the first that knows the model's type is taken. */
  readonly models: readonly (keyof typeof Library & `AutoModel${string}`)[];
  readonly tokenizer?: true;
  readonly processor?: true;
  /** What it is called with, in this order. */
  readonly inputs: readonly TaskInput[];
  readonly output: TaskOutput;
  /**
   * Its options that a request may set, under their names in transformers.js. No others: some of them are URLs that
   * would be fetched.
   */
  readonly parameters: readonly string[];
  /** Whether it generates token by token, and so can be stopped. */
  readonly generates?: true;
}

const GENERATION = [
  ...['max_new_tokens', 'min_new_tokens', 'max_length', 'min_length', 'do_sample', 'temperature', 'top_k', 'top_p'],
  ...['num_beams', 'repetition_penalty', 'no_repeat_ngram_size'],
];

const seq2seq = {
  models: ['AutoModelForSeq2SeqLM'],
  tokenizer: true,
  inputs: ['text'],
  output: 'texts',
  parameters: GENERATION,
  generates: true,
} as const;
const text = { tokenizer: true, inputs: ['text'] } as const;
const image = { processor: true, inputs: ['image'] } as const;
const audio = { processor: true, inputs: ['audio'] } as const;
const segmentation = [
  'AutoModelForImageSegmentation',
  'AutoModelForSemanticSegmentation',
  'AutoModelForUniversalSegmentation',
] as const;

/** All tasks of transformers.js but `text-generation`, which streams and has an engine of its own. */
const tasks = {
  'text-classification': {
    ...text,
    pipeline: 'TextClassificationPipeline',
    models: ['AutoModelForSequenceClassification'],
    output: 'labels',
    parameters: ['top_k'],
  },
  'token-classification': {
    ...text,
    pipeline: 'TokenClassificationPipeline',
    models: ['AutoModelForTokenClassification'],
    output: 'json',
    parameters: ['ignore_labels', 'aggregation_strategy'],
  },
  'question-answering': {
    pipeline: 'QuestionAnsweringPipeline',
    models: ['AutoModelForQuestionAnswering'],
    tokenizer: true,
    inputs: ['question', 'context'],
    output: 'texts',
    parameters: ['top_k'],
  },
  'fill-mask': {
    ...text,
    pipeline: 'FillMaskPipeline',
    models: ['AutoModelForMaskedLM'],
    output: 'labels',
    parameters: ['top_k'],
  },
  summarization: { ...seq2seq, pipeline: 'SummarizationPipeline' },
  translation: { ...seq2seq, pipeline: 'TranslationPipeline', parameters: [...GENERATION, 'src_lang', 'tgt_lang'] },
  'text2text-generation': { ...seq2seq, pipeline: 'Text2TextGenerationPipeline' },
  'zero-shot-classification': {
    pipeline: 'ZeroShotClassificationPipeline',
    models: ['AutoModelForSequenceClassification'],
    tokenizer: true,
    inputs: ['text', 'candidate_labels'],
    output: 'labels',
    parameters: ['hypothesis_template', 'multi_label'],
  },
  'feature-extraction': {
    ...text,
    pipeline: 'FeatureExtractionPipeline',
    models: ['AutoModel'],
    output: 'embedding',
    parameters: ['pooling', 'normalize'],
  },
  'text-to-audio': {
    ...text,
    pipeline: 'TextToAudioPipeline',
    models: ['AutoModelForTextToWaveform', 'AutoModelForTextToSpectrogram'],
    output: 'audio',
    parameters: [],
  },
  'audio-classification': {
    ...audio,
    pipeline: 'AudioClassificationPipeline',
    models: ['AutoModelForAudioClassification'],
    output: 'labels',
    parameters: ['top_k'],
  },
  'zero-shot-audio-classification': {
    pipeline: 'ZeroShotAudioClassificationPipeline',
    models: ['AutoModel'],
    tokenizer: true,
    processor: true,
    inputs: ['audio', 'candidate_labels'],
    output: 'labels',
    parameters: ['hypothesis_template'],
  },
  'automatic-speech-recognition': {
    ...audio,
    pipeline: 'AutomaticSpeechRecognitionPipeline',
    models: ['AutoModelForSpeechSeq2Seq', 'AutoModelForCTC'],
    tokenizer: true,
    output: 'texts',
    parameters: [
      ...GENERATION,
      ...['language', 'task', 'return_timestamps', 'chunk_length_s', 'stride_length_s', 'force_full_sequences'],
    ],
    generates: true,
  },
  'image-classification': {
    ...image,
    pipeline: 'ImageClassificationPipeline',
    models: ['AutoModelForImageClassification'],
    output: 'labels',
    parameters: ['top_k'],
  },
  'zero-shot-image-classification': {
    pipeline: 'ZeroShotImageClassificationPipeline',
    models: ['AutoModel'],
    tokenizer: true,
    processor: true,
    inputs: ['image', 'candidate_labels'],
    output: 'labels',
    parameters: ['hypothesis_template'],
  },
  'image-to-text': {
    ...image,
    pipeline: 'ImageToTextPipeline',
    models: ['AutoModelForVision2Seq'],
    tokenizer: true,
    output: 'texts',
    parameters: GENERATION,
    generates: true,
  },
  'document-question-answering': {
    pipeline: 'DocumentQuestionAnsweringPipeline',
    models: ['AutoModelForDocumentQuestionAnswering'],
    tokenizer: true,
    processor: true,
    inputs: ['image', 'question'],
    output: 'texts',
    parameters: GENERATION,
    generates: true,
  },
  'image-segmentation': {
    ...image,
    pipeline: 'ImageSegmentationPipeline',
    models: segmentation,
    output: 'masks',
    parameters: ['threshold', 'mask_threshold', 'overlap_mask_area_threshold'],
  },
  'background-removal': {
    ...image,
    pipeline: 'BackgroundRemovalPipeline',
    models: segmentation,
    output: 'image',
    parameters: [],
  },
  'object-detection': {
    ...image,
    pipeline: 'ObjectDetectionPipeline',
    models: ['AutoModelForObjectDetection'],
    output: 'boxes',
    parameters: ['threshold', 'percentage'],
  },
  'zero-shot-object-detection': {
    pipeline: 'ZeroShotObjectDetectionPipeline',
    models: ['AutoModelForZeroShotObjectDetection'],
    tokenizer: true,
    processor: true,
    inputs: ['image', 'candidate_labels'],
    output: 'boxes',
    parameters: ['threshold', 'top_k', 'percentage'],
  },
  'image-to-image': {
    ...image,
    pipeline: 'ImageToImagePipeline',
    models: ['AutoModelForImageToImage'],
    output: 'image',
    parameters: [],
  },
  'depth-estimation': {
    ...image,
    pipeline: 'DepthEstimationPipeline',
    models: ['AutoModelForDepthEstimation'],
    output: 'depth',
    parameters: [],
  },
  'image-feature-extraction': {
    ...image,
    pipeline: 'ImageFeatureExtractionPipeline',
    models: ['AutoModelForImageFeatureExtraction', 'AutoModel'],
    output: 'embedding',
    parameters: ['pool'],
  },
} as const satisfies Record<string, Task>;

/** Tasks by their names. */
export const TASKS: Readonly<Record<string, Task>> = tasks;

/** Other names of tasks, which transformers.js and Python's transformers know as well. */
export const TASK_ALIASES: Readonly<Record<string, string>> = {
  'sentiment-analysis': 'text-classification',
  ner: 'token-classification',
  asr: 'automatic-speech-recognition',
  'text-to-speech': 'text-to-audio',
  embeddings: 'feature-extraction',
};
