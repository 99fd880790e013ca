import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { JsonValue, Model } from '@splitlearn/comm/model';
import { describe, expect, it, onTestFinished } from 'vitest';
import { first, folder, load, managerError, run, stream } from '../../test/fixtures/tiny-gpt2.js';

/** A copy of the model in a folder of its own, which a test may change. */
async function copyOfModel(): Promise<string> {
  const copy = await mkdtemp(join(tmpdir(), 'tiny-gpt2-'));
  onTestFinished(() => rm(copy, { recursive: true }));
  await cp(folder, copy, { recursive: true });
  return copy;
}

async function changeJson(path: string, changes: Record<string, JsonValue>): Promise<void> {
  const json = JSON.parse(await readFile(path, 'utf8')) as Record<string, JsonValue>;
  await writeFile(path, JSON.stringify({ ...json, ...changes }));
}

/** Loads a changed model for the length of a test. */
async function loadForTest(from: string, file?: string): Promise<Model> {
  const model = await load(from, file);
  onTestFinished(() => model.dispose?.());
  return model;
}

describe('files that say something else', () => {
  it('leaves the sampling settings of generation_config.json aside, but ends with its tokens', async () => {
    const copy = await copyOfModel();
    await changeJson(join(copy, 'generation_config.json'), {
      do_sample: true,
      temperature: 9,
      top_k: 1,
      max_length: 3,
      max_new_tokens: 2,
      min_length: 200,
      repetition_penalty: 5,
      no_repeat_ngram_size: 1,
      suppress_tokens: [...first.greedy_ids],
      num_beams: 4,
      eos_token_id: [1023, 11],
    });
    const other = await loadForTest(copy);
    expect(await run(other, first.prompt)).toEqual({
      text: ' of the Spirit',
      tokens: first.greedy_ids.slice(0, 6),
      finishReason: 'stop',
    });
  });

  it('needs no generation_config.json', async () => {
    const copy = await copyOfModel();
    await rm(join(copy, 'generation_config.json'));
    const other = await loadForTest(copy);
    expect(await run(other, 'and ever. Am')).toMatchObject({ text: 'en.', finishReason: 'stop' });
  });

  it('believes config.json, not the tokenizer, about the context', async () => {
    const copy = await copyOfModel();
    await changeJson(join(copy, 'tokenizer_config.json'), { model_max_length: 1e30 });
    const other = await loadForTest(copy);
    expect(other.info?.attributes?.contextLength).toBe('256');
    await expect(run(other, 'x'.repeat(256))).rejects.toEqual(managerError('CONTEXT_LENGTH_EXCEEDED', /256/));
  });

  it('explains a failure of the runtime, also to a consumer that was busy when it came', async () => {
    const copy = await copyOfModel();
    await changeJson(join(copy, 'config.json'), { n_positions: 512 });
    const other = await loadForTest(copy);
    const error = managerError('INFERENCE_FAILED', /indices element out of data bounds/);
    await expect(run(other, 'x'.repeat(300))).rejects.toEqual(error);

    const pieces = stream(other, 'x'.repeat(250))[Symbol.asyncIterator]();
    await pieces.next();
    for (let turn = 0; turn < 100; turn += 1) await new Promise(setImmediate);
    const rest = (async () => {
      let count = 1;
      while (!(await pieces.next()).done) count += 1;
      return count;
    })();
    await expect(rest).rejects.toEqual(error);
  });

  it('loads a file of any name in any folder of the model', async () => {
    const copy = await copyOfModel();
    await cp(join(copy, 'onnx', 'model.onnx'), join(copy, 'decoder_q4.onnx'));
    await rm(join(copy, 'onnx'), { recursive: true });
    const other = await loadForTest(copy, join(copy, 'decoder_q4.onnx'));
    expect((await run(other, first.prompt, { maxNewTokens: 32 })).text).toBe(first.greedy_text);
  });
});

describe('what cannot be loaded', () => {
  it.each(['config.json', 'tokenizer.json', 'tokenizer_config.json', 'onnx/model.onnx'])(
    'names %s when it is missing',
    async (name) => {
      const copy = await copyOfModel();
      await rm(join(copy, name));
      await expect(load(copy)).rejects.toEqual(
        managerError('SOURCE_INVALID', new RegExp(`of model 'tiny' has no .*${basename(name)} .*download or copy`)),
      );
    },
  );

  it.each([
    ['config.json', '{', 'config.json'],
    ['tokenizer.json', '{}', 'tokenizer.json or tokenizer_config.json'],
    ['tokenizer_config.json', '', 'tokenizer.json or tokenizer_config.json'],
    ['onnx/model.onnx', 'no model', 'model.onnx'],
  ])('names %s when it is damaged', async (name, content, named) => {
    const copy = await copyOfModel();
    await writeFile(join(copy, name), content);
    const failure = load(copy);
    await expect(failure).rejects.toEqual(
      managerError('MODEL_LOAD_FAILED', new RegExp(`^The .*${named} of model 'tiny' in .* cannot be loaded.*download`)),
    );
    await expect(failure).rejects.toHaveProperty('cause', expect.any(Error));
  });

  it('says so when the folder holds another kind of model', async () => {
    const copy = await copyOfModel();
    await changeJson(join(copy, 'config.json'), { model_type: 'bert' });
    await expect(load(copy)).rejects.toEqual(managerError('SOURCE_INVALID', /no language model.*the type 'bert'/));
  });

  it('says so when the ONNX file has no scores for the next token', async () => {
    await expect(load(folder, join(folder, 'onnx', 'bottom.onnx'))).rejects.toEqual(
      managerError('SOURCE_INVALID', /no language model.*bottom\.onnx has no output 'logits'/),
    );
  });
});
