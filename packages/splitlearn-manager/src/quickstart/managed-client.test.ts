import { AsyncLambdaComputeFunction, CommError, type ComputeRequest, tensor } from '@splitlearn/comm';
import { loopback } from '@splitlearn/comm/testing';
import { describe, expect, it } from 'vitest';
import { type GenerateOptions, ManagedClient } from './managed-client.js';

/** Answers as a text model does, in one piece, and keeps the requests. */
async function setUp() {
  const requests: ComputeRequest[] = [];
  const metadata: Readonly<Record<string, string>>[] = [];
  const pair = await loopback(
    new AsyncLambdaComputeFunction((_, { request, metadata: sent }) => {
      requests.push(request);
      metadata.push(sent);
      return {
        text: tensor(['the answer']),
        token_id: tensor(BigInt64Array.of(7n)),
        token_ids: tensor(BigInt64Array.of(7n, 8n)),
        finish_reason: tensor(['stop']),
      };
    }),
  );
  const client = new ManagedClient(`127.0.0.1:${pair.port}`);
  const close = async () => {
    await client.close();
    await pair.close();
  };
  return { client, requests, metadata, [Symbol.asyncDispose]: close };
}

async function failure(work: Promise<unknown>): Promise<CommError> {
  const error = await work.then(
    () => expect.fail('nothing was thrown'),
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(CommError);
  return error;
}

describe('a prompt', () => {
  it('is sent as the tensor text, and what comes back is put into plain words', async () => {
    await using served = await setUp();
    const whole = { text: 'the answer', tokenIds: [7, 8], finishReason: 'stop' };
    expect(await served.client.infer('the prompt')).toEqual(whole);
    const pieces = [];
    for await (const piece of served.client.generate('the prompt')) pieces.push(piece);
    expect(pieces).toEqual([{ text: 'the answer', tokenId: 7, finishReason: 'stop' }]);
    expect(served.requests.map(({ inputs }) => inputs)).toEqual(Array(2).fill({ text: tensor(['the prompt']) }));
  });

  it('goes with the parameters that are set, and with no others', async () => {
    await using served = await setUp();
    const parameters = {
      maxNewTokens: 1,
      temperature: 0,
      topK: 2,
      topP: 0.5,
      repetitionPenalty: 1.1,
      seed: 0,
      stop: ['.', '!'],
    };
    await served.client.infer('the prompt', { ...parameters, model: 'm', timeoutMs: 10_000, requestId: 'r' });
    const unset = { maxNewTokens: undefined, temperature: 1 } as unknown as GenerateOptions;
    await served.client.infer('the prompt', unset);
    const [all, one] = served.requests;
    expect(all).toMatchObject({ model: 'm', parameters });
    expect(Object.keys(all?.parameters ?? {}).sort()).toEqual(Object.keys(parameters).sort());
    expect(one?.parameters).toEqual({ temperature: 1 });
    expect(one).not.toHaveProperty('model');
  });

  it('to a model that does not answer with text is a clear error', async () => {
    await using pair = await loopback(new AsyncLambdaComputeFunction((inputs) => inputs));
    await using client = new ManagedClient(`127.0.0.1:${pair.port}`);
    const errors = [
      { work: () => client.infer('the prompt'), missing: "'token_ids'" },
      { work: () => client.generate('the prompt').next(), missing: "'token_id'" },
    ];
    for (const { work, missing } of errors) {
      const { code, message } = await failure(work());
      expect(code).toBe('FAILED_PRECONDITION');
      for (const part of [missing, 'does not continue texts', 'tensors']) expect(message).toContain(part);
    }
  });
});

describe('tensors', () => {
  it('go as they are, with the options of a call', async () => {
    await using served = await setUp();
    const outputs = await served.client.infer({ a: tensor([1]) }, { outputs: ['text'], parameters: { depth: 2 } });
    expect(outputs).toEqual({ text: tensor(['the answer']) });
    expect(served.requests[0]).toMatchObject({
      inputs: { a: tensor([1]) },
      parameters: { depth: 2 },
      outputs: ['text'],
    });
  });
});

describe('a client', () => {
  it('has a name of its own, which all its calls have unless they have another', async () => {
    await using served = await setUp();
    await using other = await setUp();
    const x = { x: tensor([1]) };
    await served.client.infer('the prompt');
    for await (const _ of served.client.generate('the prompt'));
    await served.client.compute(x);
    await served.client.infer(x, { metadata: { 'splitlearn-priority': 'low' } });
    await served.client.computeWithTiming(x, { metadata: { 'splitlearn-client': 'me' } });
    await other.client.infer('the prompt');
    const names = served.metadata.map((sent) => sent['splitlearn-client']);
    expect(names[0]).toMatch(/^[0-9a-f-]{36}$/);
    expect(names).toEqual([...Array(4).fill(names[0]), 'me']);
    expect(served.metadata[3]?.['splitlearn-priority']).toBe('low');
    expect(other.metadata[0]?.['splitlearn-client']).not.toBe(names[0]);
  });
});
