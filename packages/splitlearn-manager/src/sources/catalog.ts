import { fileURLToPath } from 'node:url';

/** Where a model with a short name is from. */
export type CatalogEntry =
  | {
      /** Absolute path of a folder that ships with this package: nothing is downloaded. */
      readonly folder: string;
      readonly task: string;
    }
  | {
      /** A repository of the hub. */
      readonly repository: string;
      /** What the model does, by the name of the task in transformers.js. */
      readonly task: string;
    };

/** Models that have a short name. */
export const CATALOG: ReadonlyMap<string, CatalogEntry> = new Map<string, CatalogEntry>([
  ['tiny-gpt2', { folder: fileURLToPath(new URL('../../models/tiny-gpt2', import.meta.url)), task: 'text-generation' }],
  ['gpt2', { repository: 'Xenova/gpt2', task: 'text-generation' }],
  ['distilgpt2', { repository: 'Xenova/distilgpt2', task: 'text-generation' }],
  ['all-minilm-l6-v2', { repository: 'Xenova/all-MiniLM-L6-v2', task: 'feature-extraction' }],
  ['bge-small-en-v1.5', { repository: 'Xenova/bge-small-en-v1.5', task: 'feature-extraction' }],
  [
    'distilbert-sst2',
    { repository: 'Xenova/distilbert-base-uncased-finetuned-sst-2-english', task: 'text-classification' },
  ],
  ['bert-base-uncased', { repository: 'Xenova/bert-base-uncased', task: 'fill-mask' }],
  ['bert-base-ner', { repository: 'Xenova/bert-base-NER', task: 'token-classification' }],
]);
