import type { Tensors } from '@splitlearn/comm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readAll, type Served, serve, watchProcesses } from './support/managed.js';
import { decodeGreedily, golden, pick } from './support/tiny-gpt2.js';

watchProcesses();

let served: Served;
beforeAll(async () => {
  const part = (name: string, isolation: 'process' | 'thread') =>
    ({ modelId: name, source: 'tiny-gpt2', engine: 'onnx', file: `onnx/${name}.onnx`, isolation }) as const;
  served = await serve([
    { modelId: 'process', source: 'tiny-gpt2', isolation: 'process' },
    { modelId: 'thread', source: 'tiny-gpt2', isolation: 'thread' },
    { modelId: 'raw', source: 'tiny-gpt2', engine: 'onnx' },
    part('bottom', 'process'),
    part('trunk', 'thread'),
    part('top', 'process'),
  ]);
});
afterAll(() => served.close());

describe.each(['process', 'thread'])('text from a model in a %s', (model) => {
  it.each(golden.cases)('is what PyTorch writes after "$prompt"', async ({ prompt, greedy_ids, greedy_text }) => {
    const options = { model, maxNewTokens: golden.new_tokens };
    const pieces = await readAll(served.client.generate(prompt, options));
    expect(pieces.map(({ tokenId }) => tokenId)).toEqual(greedy_ids);
    expect(pieces.map(({ text }) => text).join('')).toBe(greedy_text);
    expect(pieces.map(({ finishReason }) => finishReason).filter((reason) => reason !== undefined)).toEqual(['length']);
    expect(pieces.at(-1)?.finishReason).toBe('length');

    const whole = await served.client.infer(prompt, options);
    expect(whole).toEqual({ text: greedy_text, tokenIds: greedy_ids, finishReason: 'length' });
  });

  it('is the same for the same seed, and another for another', async () => {
    const write = (seed: number) =>
      served.client.infer('The king', { model, maxNewTokens: 16, temperature: 0.9, topK: 40, seed });
    expect(await write(1)).toEqual(await write(1));
    expect(await write(2)).not.toEqual(await write(1));
  });

  it('ends before a stop string', async () => {
    const { text, finishReason } = await served.client.infer('In the beginning', { model, stop: ' of God' });
    expect({ text, finishReason }).toEqual({ text: ' of the Spirit, and the Spirit', finishReason: 'stop' });
  });
});

describe('tensors over the wire', () => {
  const step = (model: string, inputs: Tensors) => served.client.infer(inputs, { model });

  /** The three parts, one after the other, each with its own layers' cache. */
  async function throughTheParts(inputs: Tensors): Promise<Tensors> {
    const mask = pick(inputs, /^attention_mask$/);
    const hidden = ({ hidden_states_out }: Tensors): Tensors =>
      hidden_states_out ? { hidden_states_in: hidden_states_out } : {};
    const bottom = await step('bottom', pick(inputs, /^(input_ids|attention_mask|position_ids)$/, /\.0\./));
    const trunk = await step('trunk', { ...hidden(bottom), ...mask, ...pick(inputs, /\.[12]\./) });
    const top = await step('top', { ...hidden(trunk), ...mask, ...pick(inputs, /\.3\./) });
    return { ...bottom, ...trunk, ...top };
  }

  it.each(golden.cases)(
    'give the logits and, with the cache there and back, the tokens after "$prompt"',
    async (expected) => {
      const whole = await decodeGreedily(expected.input_ids, golden.new_tokens, (inputs) => step('raw', inputs));
      expect(whole.ids).toEqual(expected.greedy_ids);
      for (const [index, logit] of expected.last_logits_first16.entries()) {
        expect(Math.abs((whole.firstLogits[index] ?? Number.NaN) - logit)).toBeLessThan(golden.tolerance);
      }

      const parts = await decodeGreedily(expected.input_ids, golden.new_tokens, throughTheParts);
      expect(parts).toEqual(whole);
    },
  );

  it('are only those outputs that are asked for', async () => {
    const [{ input_ids: ids } = expect.fail('there are no golden cases')] = golden.cases;
    await decodeGreedily(ids, 1, async (inputs) => {
      const outputs = await served.client.infer(inputs, { model: 'raw', outputs: ['logits', 'present.2.key'] });
      expect(Object.keys(outputs).sort()).toEqual(['logits', 'present.2.key']);
      expect(outputs['present.2.key']?.shape).toEqual([1, 4, ids.length, 32]);
      return outputs;
    });
  });
});
