// Routes in front of real models: replicas share the requests of a route, and a route changes without a failed one.
import { AsyncGRPCComputeServer, NoRetry, tensor } from '@splitlearn/comm';
import {
  AsyncManagedComputeFunction,
  ManagedClient,
  ManagedServer,
  type ModelConfig,
  ModelRouter,
  type ModelRouterOptions,
} from '@splitlearn/manager';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { fixture } from './fixtures/hosts.js';
import { commFailure, Log } from './support/managed.js';

const prompt = 'In the beginning';
const options = { maxNewTokens: 2, temperature: 0 };
const replica = (modelId: string): ModelConfig => ({ modelId, source: 'tiny-gpt2', isolation: 'thread' });
const doubles: ModelConfig = { modelId: 'good', source: fixture('modules/doubles.mjs'), isolation: 'thread' };
const throws: ModelConfig = { modelId: 'bad', source: fixture('modules/throws.mjs'), isolation: 'thread' };

let server: ManagedServer;
beforeAll(async () => {
  server = new ManagedServer([replica('a'), replica('b'), doubles, throws], { port: 0, logger: new Log() });
  await server.start();
});
afterAll(() => server.stop({ graceMs: 0 }));

/** The server's models behind a router of a test's own, and a client that makes every request once. */
async function route(routes: NonNullable<ModelRouterOptions['routes']>) {
  const { modelManager, metrics } = server;
  const router = new ModelRouter({ modelManager, routes });
  router.checkRoutes();
  const computeFn = new AsyncManagedComputeFunction({ router, modelManager, metrics });
  const front = new AsyncGRPCComputeServer({ computeFn, port: 0, logger: new Log() });
  const client = new ManagedClient(`127.0.0.1:${await front.start()}`, { retry: new NoRetry() });
  const close = async () => {
    await client.close();
    await front.stop({ graceMs: 0 });
  };
  return { router, client, [Symbol.asyncDispose]: close };
}

/** How many requests models have had since the test began. */
let before: Readonly<Record<string, number>>;
function requests(): Record<string, number> {
  const { requestsByModel } = server.getStatus();
  return Object.fromEntries(Object.entries(requestsByModel).map(([modelId, { requests }]) => [modelId, requests]));
}
function requestsOf(modelId: string): number {
  return (requests()[modelId] ?? 0) - (before[modelId] ?? 0);
}
beforeEach(() => {
  before = requests();
});

const both = [{ model: 'a' }, { model: 'b' }];

describe('a route over two replicas', () => {
  it('gives each in turn a request, whether it is answered at once or piece by piece', async () => {
    await using served = await route({ gpt: { strategy: 'round-robin', targets: both } });
    const texts = new Set<string>();
    for (let turn = 0; turn < 4; turn++) {
      texts.add((await served.client.infer(prompt, { ...options, model: 'gpt' })).text);
      let text = '';
      for await (const piece of served.client.generate(prompt, { ...options, model: 'gpt' })) text += piece.text;
      texts.add(text);
    }
    expect(texts.size).toBe(1);
    expect([requestsOf('a'), requestsOf('b')]).toEqual([4, 4]);
  });

  it('gives both of them something to do when many requests come at once', async () => {
    await using served = await route({ gpt: { targets: both } });
    await Promise.all(Array.from({ length: 16 }, () => served.client.infer(prompt, { ...options, model: 'gpt' })));
    expect(requestsOf('a')).toBeGreaterThanOrEqual(4);
    expect(requestsOf('b')).toBeGreaterThanOrEqual(4);
  });

  it('keeps the requests of a session on one of them', async () => {
    await using served = await route({ gpt: { strategy: 'sticky', targets: both } });
    const metadata = { 'splitlearn-session': 'mine' };
    for (let turn = 0; turn < 6; turn++) await served.client.infer(prompt, { ...options, model: 'gpt', metadata });
    expect([requestsOf('a'), requestsOf('b')].sort()).toEqual([0, 6]);
  });

  it('is what requests mean that name nothing, and is listed beside the models', async () => {
    await using served = await route({ gpt: { targets: both } });
    await served.client.infer(prompt, options);
    expect(requestsOf('a') + requestsOf('b')).toBe(1);
    const listed = (await served.client.listModels()).find(({ name }) => name === 'gpt');
    expect(listed).toMatchObject({ state: 'READY', attributes: { route: 'least-loaded', targets: 'a, b' } });
    expect(listed?.inputs?.length).toBeGreaterThan(0);
  });
});

it('a model tells how many requests it has, those that wait for it included', async () => {
  const { modelManager } = server;
  const lease = await modelManager.acquire('a');
  const other = await modelManager.acquire('a');
  expect(modelManager.getModelLoad('a')).toMatchObject({ state: 'READY', leaving: false, inFlight: 2, instances: 1 });
  lease.release();
  other.release();
  expect(modelManager.getModelLoad('a')?.inFlight).toBe(0);
  await modelManager.registerModel({ ...doubles, modelId: 'later', instances: 2 });
  expect(modelManager.getModelLoad('later')).toMatchObject({ state: 'UNLOADED', inFlight: 0, instances: 2 });
  const waiting = modelManager.acquire('later');
  expect(modelManager.getModelLoad('later')).toMatchObject({ state: 'LOADING', inFlight: 1 });
  const removal = modelManager.unloadModel('later');
  expect(modelManager.getModelLoad('later')).toMatchObject({ leaving: true });
  await expect(waiting).rejects.toMatchObject({ code: 'MODEL_DRAINING' });
  await removal;
  expect(modelManager.getModelLoad('later')).toBeUndefined();
});

it('a model that fails is left out of its route after three errors, and the other one answers all requests', async () => {
  const targets = [{ model: 'bad' }, { model: 'good' }];
  await using served = await route({ twice: { strategy: 'round-robin', targets } });
  const inputs = { x: tensor([1, 2]) };
  const outcomes: boolean[] = [];
  const ask = () =>
    served.client.infer(inputs, { model: 'twice' }).then(
      () => outcomes.push(true),
      () => outcomes.push(false),
    );
  for (let turn = 0; turn < 16; turn++) await ask();
  expect(outcomes).toEqual([false, true, false, true, false, ...Array(11).fill(true)]);
  expect(served.router.getRoute('twice')?.targets[0]?.leftOutMs).toBe(1_000);
  expect((await commFailure(served.client.infer(inputs, { model: 'bad' }))).code).toBe('INTERNAL');
});

it('an alias goes over to another model under load, which the old one leaves then, without a failed request', async () => {
  await server.loadModel(replica('v1'));
  await server.modelManager.registerModel(replica('v2'));
  await using served = await route({ gpt: { targets: [{ model: 'v1' }] } });
  const { router, client } = served;
  let over = false;
  let answers = 0;
  let asked = 0;
  const failures: unknown[] = [];
  const waiting: { readonly count: number; readonly resolve: () => void }[] = [];
  const answered = (count: number) => new Promise<void>((resolve) => waiting.push({ count: answers + count, resolve }));
  const user = async () => {
    while (!over) {
      const request = { ...options, model: 'gpt' };
      try {
        if (asked++ % 2 === 0) await client.infer(prompt, request);
        else for await (const _ of client.generate(prompt, request));
      } catch (error) {
        failures.push(error);
      }
      answers++;
      for (const { count, resolve } of waiting) if (answers >= count) resolve();
    }
  };
  const users = Promise.all(Array.from({ length: 8 }, user));
  await answered(20);
  const flip = router.setRoute('gpt', { targets: [{ model: 'v2' }] });
  expect(requestsOf('v2')).toBe(0);
  expect(await flip).toBe(true);
  await server.unloadModel('v1');
  const ofFirst = requestsOf('v1');
  await answered(20);
  over = true;
  await users;
  await server.unloadModel('v2');
  expect(failures).toEqual([]);
  expect(requestsOf('v1')).toBe(ofFirst);
  expect(requestsOf('v2')).toBeGreaterThanOrEqual(20);
  expect(requestsOf('v1') + requestsOf('v2')).toBe(answers);
});
