// Nobody computes for a caller who has gone: not what runs, and not what waits.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { commFailure, countTo, loop, readAll, type Served, serve, watchProcesses } from './support/managed.js';

watchProcesses();

let served: Served;
beforeAll(async () => {
  served = await serve([
    { modelId: 'writer', source: 'tiny-gpt2' },
    { modelId: 'thread', source: 'tiny-gpt2', isolation: 'thread' },
    loop,
  ]);
});
afterAll(() => served.close());
afterEach(() => {
  served.log.lines.length = 0;
});

const TOKENS = 240;
const prompt = 'In the beginning';

/** How many tokens a generation had that has ended, by the model's own account; only processes give one. */
async function tokensOf(requestId: string): Promise<number> {
  const [, pieces] = /after (\d+) pieces/.exec(await served.log.until(`of ${requestId} after`)) ?? [];
  return Number(pieces);
}

async function expectFree(model: string): Promise<void> {
  const { text } = await served.client.infer(prompt, { model, maxNewTokens: 1, requestId: `next of ${model}` });
  expect(text).toBe(' of');
  await expect.poll(() => served.server.modelManager.getModelInfo(model).leases).toBe(0);
}

it('a generation that nobody disturbs has all its tokens', async () => {
  await readAll(served.client.generate(prompt, { model: 'writer', maxNewTokens: TOKENS, requestId: 'whole' }));
  expect(await tokensOf('whole')).toBe(TOKENS);
});

describe.each(['writer', 'thread'])('a generation of the model %s', (model) => {
  it('ends when its signal is aborted, and the model is free', async () => {
    const controller = new AbortController();
    const requestId = `aborted ${model}`;
    const pieces = served.client.generate(prompt, {
      model,
      maxNewTokens: TOKENS,
      signal: controller.signal,
      requestId,
    });
    await pieces.next();
    controller.abort();
    expect(await commFailure(readAll(pieces))).toMatchObject({ code: 'CANCELLED' });
    if (model === 'writer') expect(await tokensOf(requestId)).toBeLessThan(TOKENS);
    await expectFree(model);
  });

  it('ends when its reader leaves the loop, and the model is free', async () => {
    const requestId = `left ${model}`;
    for await (const { text } of served.client.generate(prompt, { model, maxNewTokens: TOKENS, requestId })) {
      expect(text).toBe(' of');
      break;
    }
    if (model === 'writer') expect(await tokensOf(requestId)).toBeLessThan(TOKENS);
    await expectFree(model);
  });

  it('ends when its deadline passes, and the model is free', async () => {
    const requestId = `late ${model}`;
    const pieces = served.client.generate(prompt, { model, maxNewTokens: TOKENS, timeoutMs: 30, requestId });
    expect(await commFailure(readAll(pieces))).toMatchObject({ code: 'DEADLINE_EXCEEDED', retryable: false });
    await expectFree(model);
    if (served.log.lines.includes(`model '${model}': began ${requestId}`))
      expect(await tokensOf(requestId)).toBeLessThan(TOKENS);
  });
});

it('a request for the whole text ends when its signal is aborted', async () => {
  const controller = new AbortController();
  const options = { model: 'writer', maxNewTokens: TOKENS, signal: controller.signal, requestId: 'infer' };
  const answer = served.client.infer(prompt, options);
  await served.log.until('began infer');
  controller.abort();
  expect(await commFailure(answer)).toMatchObject({ code: 'CANCELLED' });
  expect(await served.log.until('of infer after')).toContain('error of infer');
  await expectFree('writer');
});

describe('a request that waits for its turn', () => {
  it('never begins when its deadline passes first', async () => {
    const running = served.client.compute(countTo(300_000), { model: 'loop', requestId: 'ahead' });
    await served.log.until('began ahead');
    const late = served.client.compute(countTo(1), { model: 'loop', requestId: 'late', timeoutMs: 20 });
    const after = served.client.compute(countTo(1), { model: 'loop', requestId: 'after' });
    expect(await commFailure(late)).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
    await Promise.all([running, after]);
    const began = served.log.lines.filter((line) => line.includes('began'));
    expect(began).toEqual(["model 'loop': began ahead", "model 'loop': began after"]);
    expect(served.server.getStatus().requestsByModel.loop?.succeeded).toBe(2);
  });

  it('never begins when it is cancelled first', async () => {
    const controller = new AbortController();
    const running = served.client.compute(countTo(500_000), { model: 'loop', requestId: 'ahead' });
    await served.log.until('began ahead');
    const waiting = [1, 2, 3].map(() =>
      served.client.compute(countTo(1), { model: 'loop', signal: controller.signal }),
    );
    await expect.poll(() => served.server.modelManager.getModelInfo('loop').leases).toBe(4);
    controller.abort();
    for (const one of waiting) expect(await commFailure(one)).toMatchObject({ code: 'CANCELLED' });
    await running;
    await served.client.compute(countTo(1), { model: 'loop', requestId: 'after' });
    const began = served.log.lines.filter((line) => line.includes('began'));
    expect(began).toEqual(["model 'loop': began ahead", "model 'loop': began after"]);
  });

  it('in a thread leaves the queue when it is cancelled, whatever runs before it', async () => {
    await served.server.loadModel({ ...loop, modelId: 'loop in a thread', isolation: 'thread' });
    const leases = () => served.server.modelManager.getModelInfo('loop in a thread').leases;
    const options = { model: 'loop in a thread' };
    let computed = false;
    const running = served.client.compute(countTo(500_000), options);
    void running.then(() => (computed = true));
    await expect.poll(leases).toBe(1);
    const controller = new AbortController();
    const waiting = served.client.compute(countTo(1), { ...options, signal: controller.signal });
    await expect.poll(leases).toBe(2);
    controller.abort();
    expect(await commFailure(waiting)).toMatchObject({ code: 'CANCELLED' });
    await expect.poll(leases).toBe(1);
    expect(computed).toBe(false);
    await running;
    await served.server.unloadModel('loop in a thread');
  });

  it('for a model that is being started gives up alone: the start goes on for the others', async () => {
    await using other = await serve({ ...loop, modelId: 'other' });
    const { pid } = other.server.modelManager.getModelInfo('other');
    process.kill(pid ?? expect.fail('it has no process'), 'SIGKILL');
    await other.log.until('was ended by SIGKILL');
    const controller = new AbortController();
    const impatient = other.client.compute(countTo(1), { signal: controller.signal });
    const patient = other.client.compute(countTo(5));
    await expect.poll(() => other.server.getStatus().models[0]?.state).toBe('LOADING');
    controller.abort();
    expect(await commFailure(impatient)).toMatchObject({ code: 'CANCELLED' });
    expect((await patient).count?.data).toEqual(BigInt64Array.of(5n));
  });
});
