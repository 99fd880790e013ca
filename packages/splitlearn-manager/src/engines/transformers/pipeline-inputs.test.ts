import { type ModelCall, type Tensors, tensor } from '@splitlearn/comm/model';
import { RawImage } from '@xenova/transformers';
import { describe, expect, it } from 'vitest';
import { callWith, managerError } from '../../../test/fixtures/tiny-gpt2.js';
import { pipelineCalls } from './pipeline-inputs.js';
import { TASKS, type Task } from './tasks.js';

function calls(task: string, inputs: Tensors, parameters: ModelCall['parameters'] = {}) {
  return pipelineCalls({ task: TASKS[task] as Task, RawImage, samplingRate: 16_000 }, inputs, callWith(parameters));
}

const image = tensor(
  Uint8Array.from({ length: 24 }, (_, index) => index),
  [2, 2, 2, 3],
);

describe('the arguments of a pipeline', () => {
  it('are all texts at once, and the options', async () => {
    expect(await calls('summarization', { text: tensor(['a', 'b']) }, { max_new_tokens: 5 })).toEqual([
      [['a', 'b'], { max_new_tokens: 5 }],
    ]);
    expect(await calls('text-to-audio', { text: tensor('a') })).toEqual([['a', {}]]);
  });

  it('are each image by itself, with what goes with all of them', async () => {
    const labels = { candidate_labels: ['cat', 'dog'] };
    const made = await calls('zero-shot-image-classification', { image }, { ...labels, hypothesis_template: 'a {}' });
    expect(made).toHaveLength(2);
    const [[first, ...others] = []] = made;
    expect(first).toMatchObject({ width: 2, height: 2, channels: 3, data: Uint8Array.from(Array(12).keys()) });
    expect(others).toEqual([['cat', 'dog'], { hypothesis_template: 'a {}' }]);
    const [[, question] = []] = await calls('document-question-answering', { image, question: tensor('who?') });
    expect(question).toBe('who?');
  });

  it('are each audio by itself', async () => {
    const audio = tensor(Float32Array.of(1, 2, 3, 4), [2, 2]);
    expect(await calls('automatic-speech-recognition', { audio }, { language: 'fr' })).toEqual([
      [Float32Array.of(1, 2), { language: 'fr' }],
      [Float32Array.of(3, 4), { language: 'fr' }],
    ]);
    const labelled = await calls('zero-shot-audio-classification', { audio, candidate_labels: tensor(['dog']) });
    expect(labelled[1]).toEqual([Float32Array.of(3, 4), ['dog'], {}]);
  });

  it.each<[string, Tensors, ModelCall['parameters'], RegExp]>([
    ['text-classification', {}, {}, /'text' is missing.*takes the string tensor 'text'/],
    ['text-classification', { text: tensor([1]) }, {}, /'text' is missing or is something else/],
    ['text-classification', { text: tensor([['a']]) }, {}, /'text' is missing or is something else/],
    ['text-classification', { text: tensor([] as string[], [0], 'string') }, {}, /'text' is missing/],
    ['text-classification', { text: tensor('a'), other: tensor(1) }, {}, /no input 'other'/],
    ['text-classification', { text: tensor('a') }, { top: 1 }, /no parameter 'top'; the parameters are: top_k/],
    ['text-classification', {}, { text: 'a' }, /no parameter 'text'/],
    // It is a URL that would be fetched.
    ['text-to-audio', { text: tensor('a') }, { speaker_embeddings: 'http://x' }, /no parameter 'speaker_embeddings'/],
    ['text-to-audio', { text: tensor(['a', 'b']) }, {}, /one text at a time/],
    ['question-answering', { question: tensor(['a', 'b']) }, { context: 'c' }, /2 questions, but 1 contexts/],
    ['question-answering', {}, { question: ['a', 1], context: 'c' }, /'question' is missing or is something else/],
    ['zero-shot-classification', { text: tensor('a') }, {}, /'candidate_labels' is missing/],
    ['image-classification', { image: tensor(['http://x']) }, {}, /'image' is missing or is something else/],
    ['image-classification', { image: tensor(new Uint8Array(4), [2, 2]) }, {}, /has the shape \[2, 2\]/],
    ['image-classification', { image: tensor(new Uint8Array(5), [1, 1, 5]) }, {}, /has the shape \[1, 1, 5\]/],
    ['image-classification', { image: tensor(new Uint8Array(0), [0, 2, 3]) }, {}, /has the shape \[0, 2, 3\]/],
    ['audio-classification', { audio: tensor([1]) }, { sampling_rate: 8_000 }, /8000 samples a second/],
    ['audio-classification', { audio: tensor(new Float32Array(0)) }, {}, /'audio' is missing/],
  ])('are refused for %s: %o %o', async (task, inputs, parameters, message) => {
    await expect(calls(task, inputs, parameters)).rejects.toEqual(managerError('INVALID_INPUT', message));
  });
});

it('every task names a pipeline and models that there are', async () => {
  const library: Record<string, unknown> = await import('@xenova/transformers');
  for (const { pipeline, models } of Object.values(TASKS)) {
    for (const name of [pipeline, ...models]) expect(library[name], name).toBeTypeOf('function');
  }
});
