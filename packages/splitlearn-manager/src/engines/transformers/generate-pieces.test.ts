import { type Model, tensor } from '@splitlearn/comm/model';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { callWith, collect, first, load, managerError, run, stream, textOf } from '../../../test/fixtures/tiny-gpt2.js';

let model: Model;
beforeAll(async () => {
  model = await load();
});
afterAll(() => model.dispose?.());

describe('parameters', () => {
  const sample = { temperature: 1, maxNewTokens: 32 };

  it('generates maxNewTokens', async () => {
    for (const maxNewTokens of [1, 2, 17]) {
      const { tokens, finishReason } = await run(model, first.prompt, { maxNewTokens });
      expect(tokens).toEqual(first.greedy_ids.slice(0, maxNewTokens));
      expect(finishReason).toBe('length');
    }
  });

  it('draws the same with the same seed and else differently', async () => {
    const [one, again, other, large] = await Promise.all([
      run(model, first.prompt, { ...sample, seed: 1 }),
      run(model, first.prompt, { ...sample, seed: 1 }),
      run(model, first.prompt, { ...sample, seed: 2 }),
      run(model, first.prompt, { ...sample, seed: 2 ** 32 + 1 }),
    ]);
    expect(again).toEqual(one);
    expect(other).not.toEqual(one);
    expect(large).not.toEqual(one);
  });

  it('draws differently each time without a seed', async () => {
    const hot = { ...sample, temperature: 3 };
    expect(await run(model, first.prompt, hot)).not.toEqual(await run(model, first.prompt, hot));
  });

  it('is greedy whatever the seed when the temperature is 0 or next to it', async () => {
    for (const temperature of [0, 1e-6]) {
      for (const seed of [1, 2]) {
        expect((await run(model, first.prompt, { temperature, seed, maxNewTokens: 32 })).text).toBe(first.greedy_text);
      }
    }
  });

  it.each([{ topK: 1 }, { topP: 1e-6 }])('is greedy with %o at any temperature', async (parameters) => {
    const { text } = await run(model, first.prompt, { ...sample, temperature: 2, seed: 1, ...parameters });
    expect(text).toBe(first.greedy_text);
  });

  it.each([{ temperature: 2 }, { topK: 3 }, { topP: 0.5 }, { repetitionPenalty: 2 }])(
    'draws something else with %o than without',
    async (parameters) => {
      const without = await run(model, first.prompt, { ...sample, seed: 1 });
      expect(await run(model, first.prompt, { ...sample, seed: 1, ...parameters })).not.toEqual(without);
    },
  );

  it('repeats less with a repetition penalty above 1 and more with one below', async () => {
    const distinct = async (repetitionPenalty: number): Promise<number> =>
      new Set((await run(model, first.prompt, { repetitionPenalty, maxNewTokens: 32 })).tokens).size;
    expect(await distinct(1.5)).toBeGreaterThan(await distinct(1));
    expect(await distinct(0.1)).toBeLessThan(await distinct(1));
  });

  it.each([
    { stop: ' God', text: ' of the Spirit, and the Spirit of' },
    { stop: ['never', 'it of G'], text: ' of the Spirit, and the Spir' },
    { stop: ['Spirit of', ' the'], text: ' of' },
    { stop: ' ', text: '' },
  ])('ends the text before $stop', async ({ stop, text }) => {
    expect(await run(model, first.prompt, { stop })).toMatchObject({ text, finishReason: 'stop' });
    const pieces = await collect(stream(model, first.prompt, callWith({ stop })));
    expect(pieces.map(textOf).join('')).toBe(text);
    expect(pieces.at(-1)?.finish_reason).toEqual(tensor(['stop']));
  });

  it('refuses one that it does not know', async () => {
    await expect(run(model, 'a', { return_full_text: true })).rejects.toEqual(
      managerError('INVALID_INPUT', /'return_full_text'.*'maxNewTokens'/),
    );
  });
});
