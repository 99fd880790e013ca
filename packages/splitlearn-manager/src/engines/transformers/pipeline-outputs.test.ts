import { assertTensor, type Tensors, tensor } from '@splitlearn/comm/model';
import { RawImage } from '@xenova/transformers';
import { describe, expect, it } from 'vitest';
import { pipelineOutputs } from './pipeline-outputs.js';
import type { TaskOutput } from './tasks.js';

/** The outputs, `json` as what it says. */
function outputs(kind: TaskOutput, results: readonly unknown[], batched = false): Record<string, unknown> {
  const made: Tensors = pipelineOutputs(kind, batched, results);
  for (const [name, one] of Object.entries(made)) assertTensor(one, name);
  const { json, ...others } = made;
  return json ? { json: (json.data as string[]).map((one) => JSON.parse(one)), ...others } : others;
}

const image = (width: number, value: number) => new RawImage(new Uint8Array(width).fill(value), width, 1, 1);

describe('the results of a pipeline', () => {
  it('are labels and scores in whatever form it gives them', () => {
    const one = { label: 'a', score: 0.75 };
    const two = { label: 'b', score: 0.25 };
    const both = { label: tensor([['a', 'b']]), score: tensor([[0.75, 0.25]]) };
    expect(outputs('labels', [[one, two]], true)).toEqual({
      json: [one, two],
      label: tensor(['a', 'b']),
      score: tensor([0.75, 0.25]),
    });
    expect(outputs('labels', [[one, two]])).toEqual({ json: [[one, two]], ...both });
    const zeroShot = { sequence: 's', labels: ['a', 'b'], scores: [0.75, 0.25] };
    expect(outputs('labels', [[zeroShot]], true)).toEqual({ json: [zeroShot], ...both });
    // Where there are more of one than of the other, only JSON can say so.
    expect(outputs('labels', [[one, two], [one]])).toEqual({ json: [[one, two], [one]] });
    expect(outputs('labels', [[{ label: null, score: 1 }]])).toHaveProperty('score');
  });

  it('are texts under whatever name it gives them', () => {
    for (const key of ['summary_text', 'translation_text', 'generated_text', 'text', 'answer']) {
      expect(outputs('texts', [[{ [key]: 'a' }, { [key]: 'b' }]], true)).toMatchObject({ text: tensor(['a', 'b']) });
      expect(outputs('texts', [[{ [key]: 'a' }]])).toMatchObject({ text: tensor(['a']) });
    }
    const chunks = { text: 'a', chunks: [{ timestamp: [0, 1], text: 'a' }] };
    expect(outputs('texts', [chunks])).toEqual({ json: [chunks], text: tensor(['a']) });
  });

  it('are embeddings, one after the other', () => {
    const result = (...values: number[]) => ({ data: Float32Array.from(values), dims: [1, 2] });
    expect(outputs('embedding', [result(1, 2)])).toEqual({ embedding: tensor([[1, 2]]) });
    expect(outputs('embedding', [result(1, 2), result(3, 4)])).toEqual({
      embedding: tensor([
        [1, 2],
        [3, 4],
      ]),
    });
  });

  it('are boxes, as tensors where they are those of one image', () => {
    const found = { label: 'cat', score: 0.5, box: { xmin: 1, ymin: 2, xmax: 3, ymax: 4 } };
    expect(outputs('boxes', [[found]])).toEqual({
      json: [[found]],
      label: tensor(['cat']),
      score: tensor([0.5]),
      box: tensor([[1, 2, 3, 4]]),
    });
    expect(outputs('boxes', [[found], []])).toEqual({ json: [[found], []] });
    expect(outputs('boxes', [[]])).toMatchObject({ box: { shape: [0, 4] }, label: { shape: [0] } });
  });

  it('are masks, whose pixels JSON does without', () => {
    const all = [
      { label: 'sky', score: 0.5, mask: image(2, 255) },
      { label: null, score: null, mask: image(2, 0) },
    ];
    expect(outputs('masks', [all])).toEqual({
      json: [
        [
          { label: 'sky', score: 0.5 },
          { label: null, score: null },
        ],
      ],
      label: tensor(['sky', '']),
      score: tensor(Float32Array.of(0.5, Number.NaN)),
      mask: tensor(Uint8Array.of(255, 255, 0, 0), [2, 1, 2]),
    });
    expect(outputs('masks', [[all[0]]])).toMatchObject({ mask: { shape: [1, 1, 2] } });
    expect(outputs('masks', [[]])).toMatchObject({ mask: { shape: [0, 0, 0] } });
  });

  it('are pixels, depths and sound', () => {
    expect(outputs('image', [image(2, 7)])).toEqual({ image: tensor(Uint8Array.of(7, 7), [1, 2, 1]) });
    expect(outputs('image', [image(1, 7), image(1, 8)])).toEqual({ image: tensor(Uint8Array.of(7, 8), [2, 1, 1, 1]) });
    expect(() => outputs('image', [image(1, 7), image(2, 8)])).toThrow('differ in their shapes');
    const predicted_depth = { data: Float32Array.of(1, 2), dims: [1, 2] };
    expect(outputs('depth', [{ predicted_depth, depth: image(2, 0) }])).toEqual({ depth: tensor([[1, 2]]) });
    expect(outputs('audio', [{ data: Float32Array.of(0.5), sampling_rate: 16_000 }])).toEqual({
      audio: tensor([0.5]),
      sampling_rate: tensor(BigInt64Array.of(16_000n)),
    });
  });

  it('are JSON whatever is in them', () => {
    expect(outputs('json', [[{ a: 1n, b: Float32Array.of(1), c: [Number.NaN] }]], true)).toEqual({
      json: [{ a: 1, c: [null] }],
    });
  });
});
