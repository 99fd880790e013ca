import { MessageChannel } from 'node:worker_threads';
import { CommError, type Model, type Tensors, tensor } from '@splitlearn/comm/model';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import {
  callWith,
  collect,
  first,
  golden,
  load,
  managerError,
  numbers,
  prompt,
  run,
  stream,
  textOf,
} from '../../../test/fixtures/tiny-gpt2.js';

/** How often the event loop turns until then: once a token, as ONNX Runtime begins every run in a turn of its own. */
async function turnsUntilSettled(promise: Promise<unknown>): Promise<number> {
  let turns = 0;
  let counting = true;
  const count = (): void => {
    turns += 1;
    if (counting) setImmediate(count);
  };
  setImmediate(count);
  await promise.catch(() => {});
  counting = false;
  return turns;
}

let model: Model;
beforeAll(async () => {
  model = await load();
});
afterAll(() => model.dispose?.());

describe('a loaded model', () => {
  it('says what it takes and returns', () => {
    expect(model.info).toEqual({
      inputs: [{ name: 'text', dtype: 'string', shape: [1] }],
      outputs: [
        { name: 'text', dtype: 'string', shape: [1] },
        { name: 'token_ids', dtype: 'int64', shape: ['new_tokens'] },
        { name: 'finish_reason', dtype: 'string', shape: [1] },
        { name: 'prompt_tokens', dtype: 'int64', shape: [1] },
      ],
      attributes: { task: 'text-generation', architecture: 'gpt2', contextLength: '256' },
    });
  });

  it.each(golden.cases)('continues "$prompt" as PyTorch does', async (expected) => {
    const outputs = await model.run(
      prompt(expected.prompt),
      callWith({ maxNewTokens: golden.new_tokens, temperature: 0 }),
    );
    expect(outputs).toEqual({
      text: tensor([expected.greedy_text]),
      token_ids: tensor(BigInt64Array.from(expected.greedy_ids, BigInt)),
      finish_reason: tensor(['length']),
      prompt_tokens: tensor(BigInt64Array.of(BigInt(expected.input_ids.length))),
    });
  });

  it('is greedy and writes 64 tokens by default', async () => {
    const { tokens, text } = await run(model, first.prompt);
    expect(tokens).toHaveLength(64);
    expect(text.startsWith(first.greedy_text)).toBe(true);
  });

  it('runs two generations at a time without mixing them up', async () => {
    const sample = { temperature: 1, seed: 5, maxNewTokens: 20 };
    const alone = await run(model, first.prompt, sample);
    const both = await Promise.all([run(model, first.prompt, sample), run(model, 'Amen', sample)]);
    expect(both[0]).toEqual(alone);
  });
});

describe('stream', () => {
  it.each(golden.cases)(
    'gives "$prompt" token by token',
    async ({ prompt: text, greedy_ids: ids, greedy_text: all }) => {
      const pieces = await collect(stream(model, text, callWith({ maxNewTokens: golden.new_tokens })));
      expect(pieces.map((piece) => numbers(piece, 'token_id'))).toEqual(ids.map((id) => [id]));
      expect(pieces.map(textOf).join('')).toBe(all);
      expect(pieces.map((piece) => piece.text?.shape)).toEqual(ids.map(() => [1]));
    },
  );

  it('says in the last piece, and only there, why the text is over', async () => {
    const pieces = await collect(stream(model, first.prompt, callWith({ maxNewTokens: 3 })));
    expect(pieces.map((piece) => Object.keys(piece))).toEqual([
      ['text', 'token_id'],
      ['text', 'token_id'],
      ['text', 'token_id', 'finish_reason', 'prompt_tokens'],
    ]);
    expect(pieces[2]?.finish_reason).toEqual(tensor(['length']));
    expect(pieces[2]?.prompt_tokens).toEqual(tensor(BigInt64Array.of(6n)));
  });

  it('ends with the token that ends the text, which is not in it', async () => {
    const pieces = await collect(stream(model, 'and ever. Am'));
    expect(pieces.map(textOf).join('')).toBe('en.');
    expect(pieces.map((piece) => numbers(piece, 'token_id')).at(-1)).toEqual([1023]);
    expect(pieces.at(-1)?.finish_reason).toEqual(tensor(['stop']));
    expect(await run(model, 'and ever. Am')).toMatchObject({ text: 'en.', finishReason: 'stop' });
  });

  it('adds up to what a run returns, for any seed', async () => {
    const text = 'Gr\u00fc\u00dfe \u65e5\u672c\u8a9e \u{1F44B}\u{1F3FD}';
    for (let seed = 0; seed < 20; seed += 1) {
      // So hot that bytes which are no characters come up.
      const parameters = { temperature: 4, seed, maxNewTokens: 40 };
      const whole = await run(model, text, parameters);
      const pieces = await collect(stream(model, text, callWith(parameters)));
      expect(pieces.map(textOf).join('')).toBe(whole.text);
      expect(pieces.flatMap((piece) => numbers(piece, 'token_id'))).toEqual(whole.tokens);
    }
  });

  it('stops generating when the consumer does', async () => {
    const reading = (async () => {
      for await (const piece of stream(model, first.prompt, callWith({ maxNewTokens: 200 }))) {
        expect(numbers(piece, 'token_id')).toEqual([first.greedy_ids[0]]);
        break;
      }
    })();
    expect(await turnsUntilSettled(reading)).toBeLessThan(20);
    await reading;
  });
});

describe('inputs', () => {
  it.each([
    [{}, /'text' is missing/],
    [{ input: tensor('a') }, /no input 'input'/],
    [{ text: tensor('a'), system: tensor('b') }, /no input 'system'/],
    [{ text: tensor(['a', 'b']) }, /dtype string and shape \[2\]/],
    [{ text: tensor([['a']]) }, /dtype string and shape \[1,1\]/],
    [{ text: tensor([], [0], 'string') }, /dtype string and shape \[0\]/],
    [{ text: tensor([1]) }, /dtype float32 and shape \[1\]/],
  ] as [Tensors, RegExp][])('refuses all but one string: %#', async (inputs, message) => {
    const error = managerError('INVALID_INPUT', new RegExp(`${message.source}.*string tensor 'text' with one element`));
    await expect(model.run(inputs, callWith())).rejects.toEqual(error);
    await expect(collect(stream(model, inputs))).rejects.toEqual(error);
  });

  it('takes the shapes [] and [1]', async () => {
    const [scalar, vector] = await Promise.all([
      model.run({ text: tensor('Amen') }, callWith()),
      model.run({ text: tensor(['Amen']) }, callWith()),
    ]);
    expect(vector).toEqual(scalar);
  });

  it('begins a new text with an empty prompt', async () => {
    const [empty, explicit] = await Promise.all([run(model, ''), run(model, '<|endoftext|>')]);
    expect(empty.text).toMatch(/^In /);
    expect(empty).toEqual(explicit);
  });

  it.each(['\u{1F468}\u200D\u{1F469}\u200D\u{1F467}', '\u5b57', 'e\u0301', '\uFFFD', '\uD83D', '\u0000', ' ', '\n\n'])(
    'takes %j',
    async (text) => {
      expect((await run(model, text, { maxNewTokens: 4 })).tokens).toHaveLength(4);
    },
  );
});

describe('the context', () => {
  // One token a letter.
  const promptOf = (tokens: number): string => 'x'.repeat(tokens);

  it('is filled up to the last token', async () => {
    expect(await run(model, promptOf(200), { maxNewTokens: 1000 })).toMatchObject({ finishReason: 'length' });
    expect((await run(model, promptOf(200), { maxNewTokens: 1000 })).tokens).toHaveLength(56);
    expect((await run(model, promptOf(254), { maxNewTokens: 1000 })).tokens).toHaveLength(2);
    expect((await run(model, promptOf(255), { maxNewTokens: 1000 })).tokens).toHaveLength(1);
  });

  it.each([
    [256, 'has 256 tokens'],
    [300, 'has 300 tokens'],
    [10_000_000, 'has at least \\d+ tokens'],
  ])('refuses a prompt of %i tokens', async (tokens, count) => {
    const error = managerError(
      'CONTEXT_LENGTH_EXCEEDED',
      new RegExp(`^The prompt ${count}.*'tiny' is 256.*may have 255.*Shorten`),
    );
    await expect(run(model, promptOf(tokens))).rejects.toEqual(error);
  });
});

describe('outputs', () => {
  it('are those that are wanted', async () => {
    const call = callWith({ maxNewTokens: 2 }, { outputs: ['finish_reason', 'text'] });
    expect(Object.keys(await model.run(prompt('Amen'), call))).toEqual(['text', 'finish_reason']);
    expect((await collect(stream(model, 'Amen', call))).map(Object.keys)).toEqual([
      ['text'],
      ['text', 'finish_reason'],
    ]);
  });

  it('refuses a name that there is not', async () => {
    await expect(model.run(prompt('a'), callWith({}, { outputs: ['text', 'token_id'] }))).rejects.toEqual(
      managerError('INVALID_INPUT', /no output 'token_id'.*'text', 'token_ids', 'finish_reason', 'prompt_tokens'/),
    );
    await expect(collect(stream(model, 'a', callWith({}, { outputs: ['token_ids'] })))).rejects.toEqual(
      managerError('INVALID_INPUT', /no output 'token_ids'.*'text', 'token_id', 'finish_reason', 'prompt_tokens'/),
    );
  });
});

describe('an aborted signal', () => {
  const reason = new CommError('CANCELLED', 'the caller went away');

  it('refuses to begin', async () => {
    const call = callWith({}, { signal: AbortSignal.abort(reason) });
    await expect(model.run(prompt('a'), call)).rejects.toBe(reason);
    await expect(collect(stream(model, 'a', call))).rejects.toBe(reason);
  });

  it('ends a stream after the piece at which it came', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    let pieces = 0;
    const reading = (async () => {
      for await (const piece of stream(model, first.prompt, callWith({ maxNewTokens: 200 }, { signal }))) {
        expect(piece.finish_reason).toBeUndefined();
        pieces += 1;
        if (pieces === 3) controller.abort(reason);
      }
    })();
    await expect(reading).rejects.toBe(reason);
    expect(pieces).toBe(3);
  });

  it('ends a run, and is heard between tokens when it comes as a message', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const { port1, port2 } = new MessageChannel();
    onTestFinished(() => port1.close());
    port1.on('message', () => controller.abort(reason));
    const running = Promise.resolve(model.run(prompt(first.prompt), callWith({ maxNewTokens: 240 }, { signal })));
    port2.postMessage('stop');
    expect(await turnsUntilSettled(running)).toBeLessThan(20);
    await expect(running).rejects.toBe(reason);
    expect((await run(model, first.prompt, { maxNewTokens: 32 })).text).toBe(first.greedy_text);
  });
});
