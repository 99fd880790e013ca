// The tasks of transformers.js, on models so small that what they say can be foreseen: see tools/make-onnx-fixtures.py.
import { fileURLToPath } from 'node:url';
import { type Model, type ModelCall, type Tensors, tensor } from '@splitlearn/comm';
import { describe, expect, it, onTestFinished } from 'vitest';
import { loadTransformersModel } from '../src/engines/transformers.js';
import { callWith, managerError, folder as tinyGpt2 } from './fixtures/tiny-gpt2.js';

interface Loaded {
  readonly model: Model;
  run(inputs: Tensors, parameters?: ModelCall['parameters']): Promise<Record<string, unknown>>;
}

/** Loads a model for one test. `run` gives each output as `[shape, data]`, and `json` as what it says. */
async function load(name: string, task?: string, file = 'model'): Promise<Loaded> {
  const folder = name.startsWith('/') ? name : fileURLToPath(new URL(`fixtures/${name}`, import.meta.url));
  const options = { modelId: name, folder, file: `${folder}/onnx/${file}.onnx`, threads: 1, ...(task && { task }) };
  const model = await loadTransformersModel(options);
  onTestFinished(() => model.dispose?.());
  return {
    model,
    run: async (inputs, parameters) => {
      const outputs = await model.run(inputs, callWith(parameters));
      return Object.fromEntries(
        Object.entries(outputs).map(([output, { shape, data }]) => {
          if (output === 'json') return [output, (data as string[]).map((one) => JSON.parse(one))];
          return [output, [shape, Array.from(data as ArrayLike<unknown>, round)]];
        }),
      );
    },
  };
}

function round<T>(value: T): T {
  return typeof value === 'number' ? ((Math.round(value * 1e4) / 1e4) as T) : value;
}

const texts = { text: tensor(['good film', 'a very bad film']) };
/** The likelihood of the greater of two scores that differ by four. */
const sure = round(1 / (1 + Math.exp(-4)));

describe('the task', () => {
  it('is what the architecture is made for, where none is given', async () => {
    expect((await load('tiny-bert')).model.info?.attributes).toMatchObject({
      task: 'text-classification',
      architecture: 'bert',
      parameters: 'top_k',
    });
    expect((await load('tiny-vit')).model.info?.attributes?.task).toBe('image-classification');
    expect((await load(tinyGpt2)).model.info?.attributes?.task).toBe('text-generation');
  });

  it('may be given by another name that it goes by', async () => {
    expect((await load('tiny-bert', 'embeddings')).model.info?.attributes?.task).toBe('feature-extraction');
  });

  it('has to be one that there is, and that the model can do', async () => {
    await expect(load('tiny-bert', 'fortune-telling')).rejects.toEqual(
      managerError('INVALID_CONFIG', /unknown task 'fortune-telling'; tasks are: .*fill-mask.*text-generation/),
    );
    await expect(load('tiny-bert', 'object-detection')).rejects.toEqual(
      managerError('SOURCE_INVALID', /has no preprocessor_config\.json/),
    );
    await expect(load('tiny-vit', 'audio-classification')).rejects.toEqual(
      managerError('SOURCE_INVALID', /cannot do the task 'audio-classification'.*the type 'vit'/),
    );
    await expect(load('tiny-bert', 'text-generation')).rejects.toEqual(
      managerError('SOURCE_INVALID', /no language model.*the type 'bert'/),
    );
  });
});

describe('text', () => {
  it('is classified, several at once', async () => {
    const { run } = await load('tiny-bert');
    expect(await run(texts)).toEqual({
      json: [
        { label: 'entailment', score: expect.closeTo(sure, 4) },
        { label: 'contradiction', score: expect.closeTo(sure, 4) },
      ],
      label: [[2], ['entailment', 'contradiction']],
      score: [[2], [sure, sure]],
    });
    expect(await run({ text: tensor('bad') }, { top_k: 2 })).toMatchObject({
      label: [
        [1, 2],
        ['contradiction', 'entailment'],
      ],
      score: [
        [1, 2],
        [sure, round(1 - sure)],
      ],
    });
  });

  it('becomes embeddings, of each token or pooled', async () => {
    const { run } = await load('tiny-bert', 'feature-extraction');
    const [shape, tokens] = (await run(texts)).embedding as [number[], number[]];
    expect(shape).toEqual([2, 6, 2]);
    expect(tokens.slice(0, 8)).toEqual([0, 0, 0, 4, 1, 1, 0, 0]);
    // [CLS] good film [SEP] is four tokens.
    expect(await run({ text: tensor('good film') }, { pooling: 'mean' })).toEqual({
      embedding: [
        [1, 2],
        [0.25, 1.25],
      ],
    });
    const length = Math.hypot(0.25, 1.25);
    expect(await run({ text: tensor('good film') }, { pooling: 'mean', normalize: true })).toEqual({
      embedding: [
        [1, 2],
        [round(0.25 / length), round(1.25 / length)],
      ],
    });
  });

  it('answers questions, given as tensors or as parameters', async () => {
    const { run } = await load('tiny-bert', 'question-answering');
    const both = { question: 'very', context: 'a good film' };
    const answer = await run({}, both);
    expect(answer).toMatchObject({ json: [{ answer: 'a good' }], text: [[1], ['a good']] });
    expect(await run({ question: tensor('very'), context: tensor([both.context]) })).toEqual(answer);
    expect(await run({}, { ...both, top_k: 2 })).toMatchObject({
      text: [
        [1, 2],
        ['a good', 'good'],
      ],
    });
  });

  it('is classified by labels that come with it', async () => {
    const { run } = await load('tiny-bert', 'zero-shot-classification');
    const labels = { candidate_labels: ['good', 'bad'], hypothesis_template: '{}' };
    expect(await run({ text: tensor('a film') }, labels)).toEqual({
      json: [{ sequence: 'a film', labels: ['good', 'bad'], scores: expect.any(Array) }],
      label: [
        [1, 2],
        ['good', 'bad'],
      ],
      score: [
        [1, 2],
        [sure, round(1 - sure)],
      ],
    });
  });

  it('has its tokens classified and its mask filled', async () => {
    const classified = await (await load('tiny-bert', 'ner', 'words')).run({ text: tensor('a film') });
    expect(classified).toMatchObject({ json: [[{ word: 'a' }, { word: 'film' }]] });
    const { run } = await load('tiny-bert', 'fill-mask', 'words');
    expect(await run({ text: tensor('a [MASK] film') }, { top_k: 2 })).toMatchObject({
      json: [[{ sequence: 'a good film' }, { sequence: 'a bad film' }]],
      label: [
        [1, 2],
        ['good', 'bad'],
      ],
    });
    await expect(run({ text: tensor('a film') })).rejects.toEqual(
      managerError('INFERENCE_FAILED', /Mask token .* not found/),
    );
  });
});

describe('images and audio', () => {
  /** Four by four pixels of one colour. */
  const image = (...colour: number[]) => Uint8Array.from({ length: 48 }, (_, index) => colour[index % 3] ?? 0);

  it('are classified: one image, several, or the bytes of a file', async () => {
    const { run } = await load('tiny-vit');
    expect(await run({ image: tensor(image(0, 0, 255), [4, 4, 3]) }, { top_k: 1 })).toMatchObject({
      json: [[{ label: 'blue' }]],
      label: [[1, 1], ['blue']],
    });
    const two = tensor(Uint8Array.of(...image(255, 0, 0), ...image(0, 255, 0)), [2, 4, 4, 3]);
    expect(await run({ image: two }, { top_k: 1 })).toMatchObject({
      label: [
        [2, 1],
        ['red', 'green'],
      ],
    });
    const pixel = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVQI12P4z8AAAAMBAQAY3Y2wAAAAAElFTkSuQmCC';
    const file = tensor(Uint8Array.from(Buffer.from(pixel, 'base64')));
    expect(await run({ image: file }, { top_k: 1 })).toMatchObject({ label: [[1, 1], ['red']] });
    await expect(run({ image: tensor(new Uint8Array(100)) })).rejects.toEqual(
      managerError('INVALID_INPUT', /bytes of 'image' are no image file/),
    );
  });

  it('are classified: audio, in the samples that the model takes', async () => {
    const { run } = await load('tiny-wav2vec2', 'audio-classification');
    const audio = tensor(Float32Array.of(...Array(100).fill(0.1), ...Array(100).fill(0)), [2, 100]);
    expect(await run({ audio }, { sampling_rate: 16_000, top_k: 1 })).toMatchObject({
      label: [
        [2, 1],
        ['loud', 'quiet'],
      ],
    });
    await expect(run({ audio }, { sampling_rate: 44_100 })).rejects.toEqual(
      managerError('INVALID_INPUT', /44100 samples a second, but the model takes 16000: resample it/),
    );
  });
});

it('a call that was aborted does not begin', async () => {
  const { model } = await load('tiny-bert');
  const reason = new Error('nobody waits');
  const call = { ...callWith(), signal: AbortSignal.abort(reason) };
  await expect(model.run(texts, call)).rejects.toBe(reason);
});
