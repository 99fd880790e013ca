import { AsyncGRPCComputeServer, GRPCComputeClient } from '@splitlearn/comm';
import { afterEach, describe, expect, it } from 'vitest';
import { FakeHost, MIB } from '../../test/support/models.js';
import { AsyncModelManager } from '../models/async-model-manager.js';
import { ModelRouter } from '../routing/model-router.js';
import { AsyncManagedComputeFunction } from '../server/async-managed-compute-function.js';
import { HealthChecker } from './health-checker.js';
import { HealthWatch } from './health-watch.js';

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A gRPC server of managed models whose hosts are no processes, with its health put together by hand. */
async function serve() {
  const hosts: FakeHost[] = [];
  const world = { refuses: false };
  const logger = { warn: () => {}, error: () => {} };
  const modelManager = new AsyncModelManager(
    { logger },
    {
      locateModel: async ({ source }) => ({
        modelId: source,
        engine: 'onnx',
        folder: '/',
        file: '/m.onnx',
        fileBytes: 1,
      }),
      estimateNeed: async () => ({ memoryBytes: MIB, parts: { weights: MIB, runtime: 0, cache: 0 } }),
      startHost: async (_, { modelId }) => {
        if (world.refuses) throw new Error('it ends as soon as it is started');
        const host = new FakeHost(modelId, MIB);
        hosts.push(host);
        return host;
      },
    },
  );
  const checker = new HealthChecker({ models: () => modelManager.listModels() });
  const router = new ModelRouter({ modelManager });
  const { metrics } = modelManager;
  const computeFn = new AsyncManagedComputeFunction({ router, modelManager, metrics });
  const server = new AsyncGRPCComputeServer({ computeFn, port: 0, logger });
  const watch = new HealthWatch(
    { checker, setHealth: (service, health) => server.setHealth(service, health), logger },
    { every: () => () => {}, watchEventLoop: () => ({ read: () => ({ p99Ms: 0, maxMs: 0 }), stop: () => {} }) },
  );
  modelManager.on('state', () => watch.update());
  watch.start();
  const client = new GRPCComputeClient(`127.0.0.1:${await server.start()}`);
  checker.enter('serving');
  watch.update();
  closing.push(
    () => modelManager.shutdown({ graceMs: 0 }),
    () => server.stop({ graceMs: 0 }),
    () => client.close(),
  );
  const healthOf = (service: string) => client.healthCheck(service).catch((error) => error.code);
  return { world, hosts, modelManager, checker, watch, server, client, healthOf };
}

describe('a health check of a model', () => {
  it('is SERVING once it is loaded, and NOT_FOUND before and after', async () => {
    const { modelManager, healthOf, watch } = await serve();
    expect(await healthOf('gpt2')).toBe('NOT_FOUND');
    await modelManager.loadModel('gpt2');
    expect(await healthOf('gpt2')).toBe('SERVING');
    await modelManager.unloadModel('gpt2');
    expect(await healthOf('gpt2')).toBe('NOT_SERVING');
    watch.update();
    expect(await healthOf('gpt2')).toBe('NOT_FOUND');
    expect(await healthOf('')).toBe('SERVING');
  });

  it('is NOT_SERVING while it is known and not loaded', async () => {
    const { modelManager, healthOf, watch } = await serve();
    await modelManager.registerModel('gpt2');
    watch.update();
    expect(await healthOf('gpt2')).toBe('NOT_SERVING');
  });

  it('is NOT_SERVING while its process is started again, and SERVING when that is up', async () => {
    const { modelManager, hosts, healthOf } = await serve();
    await modelManager.loadModel('gpt2');
    const states: unknown[] = [];
    modelManager.on('state', async ({ state }) => states.push([state, await healthOf('gpt2')]));
    hosts[0]?.crash();
    await expect
      .poll(() => states)
      .toEqual([
        ['LOADING', expect.any(String)],
        ['READY', 'SERVING'],
      ]);
  });

  it('is NOT_SERVING when it crashes and does not come back, and so is a server that has no other', async () => {
    const { world, modelManager, hosts, healthOf, checker } = await serve();
    await modelManager.loadModel('gpt2');
    await modelManager.loadModel('bert');
    world.refuses = true;
    for (const host of hosts) host.crash();
    await expect
      .poll(async () => [await healthOf('gpt2'), await healthOf('bert')])
      .toEqual(['NOT_SERVING', 'NOT_SERVING']);
    expect(await healthOf('')).toBe('SERVING');
    expect(checker.check().models.gpt2?.reason).toMatch(/^it is being started again: /);
  });
});

describe('a server that drains', () => {
  it('says NOT_SERVING of itself and its models before it stops', async () => {
    const { modelManager, checker, watch, healthOf } = await serve();
    await modelManager.loadModel('gpt2');
    checker.enter('draining');
    watch.update();
    expect([await healthOf(''), await healthOf('gpt2')]).toEqual(['NOT_SERVING', 'NOT_SERVING']);
  });
});
