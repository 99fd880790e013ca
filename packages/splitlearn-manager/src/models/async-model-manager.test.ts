import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { FakeHost, failure, MIB, settle } from '../../test/support/models.js';
import { ManagerError } from '../errors.js';
import type { HostOptions } from '../hosts/model-host.js';
import { machineProbes } from '../resources/probes.js';
import { ResourceManager } from '../resources/resource-manager.js';
import { AsyncModelManager, type AsyncModelManagerOptions } from './async-model-manager.js';
import type { ModelConfig } from './model-config.js';

const START_MS = 20;

/** A host that knows what it was started with. */
class ConfiguredHost extends FakeHost {
  readonly options: HostOptions;

  constructor(options: HostOptions, bytes: number) {
    super(options.modelId, bytes);
    this.options = options;
  }
}

/** A manager whose models take what their `source` says in MiB, in hosts that need 20 ms to start. */
function setUp(options: Omit<AsyncModelManagerOptions, 'resourceManager'> = {}, limitMib = 100) {
  const hosts: ConfiguredHost[] = [];
  const world = {
    broken: undefined as ManagerError | undefined,
    located: 0,
    revision: 'old',
    locating: undefined as Promise<void> | undefined,
  };
  const logger = { warn: vi.fn(), error: vi.fn() };
  const resourceManager = new ResourceManager({
    memoryLimitBytes: limitMib * MIB,
    probes: {
      ...machineProbes,
      availableMemoryBytes: () => 2 ** 50,
      totalMemoryBytes: () => 2 ** 50,
      cores: () => 8,
      backends: () => [],
      gpus: async () => [],
    },
  });
  const manager = new AsyncModelManager(
    { resourceManager, logger, ...options },
    {
      locateModel: async ({ modelId, source }) => {
        world.located++;
        await world.locating;
        if (source === 'nowhere') throw new ManagerError('SOURCE_NOT_FOUND', 'there is no nowhere');
        const fileBytes = Number(source) * MIB;
        return {
          modelId: modelId ?? source,
          engine: 'onnx',
          folder: '/',
          file: '/m.onnx',
          fileBytes,
          revision: world.revision,
        };
      },
      estimateNeed: async (_, { fileBytes }) => ({
        memoryBytes: fileBytes,
        parts: { weights: fileBytes, runtime: 0, cache: 0 },
      }),
      startHost: async (_, hostOptions, __, signal) => {
        await new Promise<void>((resolve, reject) => {
          const timer = setTimeout(resolve, START_MS);
          signal.addEventListener('abort', () => {
            clearTimeout(timer);
            reject(signal.reason);
          });
        });
        if (world.broken) throw world.broken;
        const host = new ConfiguredHost(hostOptions, Number(sourceOf(hostOptions.modelId)) * MIB);
        hosts.push(host);
        return host;
      },
      every: () => () => {},
    },
  );
  const sources = new Map<string, string>();
  const sourceOf = (modelId: string) => sources.get(modelId) ?? modelId;
  const states: string[] = [];
  const evictions: string[] = [];
  manager.on('state', ({ modelId, state, error }) =>
    states.push(`${modelId} ${state}${error ? `: ${error.code}` : ''}`),
  );
  manager.on('eviction', ({ modelId, reason }) => evictions.push(`${modelId} ${reason}`));
  const config = (modelId: string, mib: number, more: Partial<ModelConfig> = {}): ModelConfig => {
    sources.set(modelId, String(mib));
    return { modelId, source: String(mib), isolation: 'thread', ...more };
  };
  /** Loads a model, and waits until it is loaded. */
  const load = async (modelId: string, mib: number, more: Partial<ModelConfig> = {}) =>
    inTime(manager.loadModel(config(modelId, mib, more)));
  /** Whether a model's hosts are alive. */
  const alive = (modelId: string) => hosts.filter((host) => host.alive && host.options.modelId === modelId).length;
  return { manager, resourceManager, hosts, world, logger, states, evictions, config, load, alive };
}

/** What a promise comes to within the time that a start takes. */
async function inTime<T>(work: Promise<T>): Promise<T> {
  work.catch(() => {});
  await vi.advanceTimersByTimeAsync(START_MS);
  return work;
}

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] }));
afterEach(() => void vi.useRealTimers());

describe('a model that is registered', () => {
  it('is not loaded before the first request for it', async () => {
    const { manager, hosts, config, resourceManager } = setUp();
    const info = await manager.registerModel(config('m', 10));
    expect(info).toMatchObject({ modelId: 'm', state: 'UNLOADED', memoryBytes: 0, loads: 0, threads: 0, pids: [] });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(hosts).toEqual([]);
    expect(resourceManager.getCurrentUsage().reservedBytes).toBe(0);
    const lease = await inTime(manager.acquire('m'));
    expect(lease.model).toBe(hosts[0]?.computeFn);
    expect(manager.getModelInfo('m')).toMatchObject({ state: 'READY', leases: 1, loads: 1, pid: 7 });
    expect(manager.getModelInfo('m').memoryBytes).toBe(10 * MIB);
  });

  it('is the same when it is registered or loaded again, and another when it is configured otherwise', async () => {
    const { manager, load, hosts, config } = setUp();
    await load('m', 10);
    await manager.registerModel(config('m', 10));
    await manager.loadModel(config('m', 10));
    expect(hosts).toHaveLength(1);
    for (const other of [config('m', 10, { pinned: true }), { ...config('m', 10), source: '11' }]) {
      expect((await failure(manager.registerModel(other))).code).toBe('MODEL_ALREADY_LOADED');
      expect((await failure(manager.loadModel(other))).code).toBe('MODEL_ALREADY_LOADED');
    }
    expect(manager.getModelInfo('m').state).toBe('READY');
  });

  it('stays known when it cannot be loaded, and one that was not known does not', async () => {
    const { manager, world, config } = setUp();
    await manager.registerModel(config('known', 10));
    world.broken = new ManagerError('MODEL_LOAD_FAILED', 'damaged');
    expect(await failure(inTime(manager.acquire('known')))).toBe(world.broken);
    expect(await failure(inTime(manager.loadModel(config('known', 10))))).toBe(world.broken);
    expect(manager.getModelInfo('known')).toMatchObject({ state: 'FAILED', failure: 'damaged' });
    expect(await failure(inTime(manager.loadModel(config('new', 10))))).toBe(world.broken);
    expect(manager.modelIds()).toEqual(['known']);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(0);
    world.broken = undefined;
    (await inTime(manager.acquire('known'))).release();
    expect(manager.getModelInfo('known')).toMatchObject({ state: 'READY' });
    expect(manager.getModelInfo('known').failure).toBe(undefined);
  });

  it('is listed in the order in which the models were given', async () => {
    const { manager, load, config } = setUp();
    await Promise.all([load('b', 1), manager.registerModel(config('a', 1)), load('c', 1)]);
    expect(manager.listModels().map(({ modelId }) => modelId)).toEqual(['b', 'a', 'c']);
    const error = await failure(manager.acquire('d'));
    expect(error.code).toBe('MODEL_NOT_FOUND');
    expect(error.message).toBe("there is no model 'd' here; loaded: 'b', 'a', 'c'");
  });
});

describe('a plan', () => {
  it('says what a load would do, without doing it', async () => {
    const { manager, load, config, hosts, alive, states } = setUp();
    await load('idle', 60);
    const before = states.length;
    const plan = await manager.plan(config('new', 50));
    expect(plan).toMatchObject({ modelId: 'new', fits: true, memoryBytes: 50 * MIB, shortBytes: 10 * MIB });
    expect(plan.evictions.map(({ modelId }) => modelId)).toEqual(['idle']);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(alive('idle')).toBe(1);
    expect(hosts).toHaveLength(1);
    expect(states).toHaveLength(before);
    expect(manager.modelIds()).toEqual(['idle']);
    expect(manager.listEvictions()).toEqual([]);
    await load('new', 50);
    expect(manager.listEvictions().map(({ modelId }) => modelId)).toEqual(['idle']);
  });

  it('says that a model is loaded already', async () => {
    const { manager, load, config } = setUp();
    await load('m', 60);
    const plan = await manager.plan(config('m', 60));
    expect(plan).toMatchObject({ fits: true, reason: 'it is loaded already', shortBytes: 0, evictions: [] });
  });

  it('fails when the model is not to be found', async () => {
    const { manager } = setUp();
    expect((await failure(manager.plan('nowhere'))).code).toBe('SOURCE_NOT_FOUND');
  });
});

describe('an eviction', () => {
  it('is remembered with its reason, and the model is known still', async () => {
    const { manager, load, evictions, states } = setUp({ maxModels: 2 });
    await load('a', 60);
    await vi.advanceTimersByTimeAsync(1_000);
    await load('b', 60);
    await load('c', 1);
    await load('d', 1);
    const [memory, places, ...more] = manager.listEvictions();
    expect(memory).toEqual({
      modelId: 'a',
      reason: 'memory',
      forModelId: 'b',
      idleMs: 1_000 + START_MS,
      reclaimedBytes: 60 * MIB,
      atMs: expect.any(Number),
    });
    expect(places).toMatchObject({ modelId: 'b', reason: 'max-models', forModelId: 'd' });
    expect(more).toEqual([]);
    expect(evictions).toEqual(['a memory', 'b max-models']);
    expect(states.filter((state) => state.startsWith('a '))).toEqual([
      'a LOADING',
      'a READY',
      'a DRAINING',
      'a UNLOADED',
    ]);
    expect(manager.getModelInfo('a')).toMatchObject({ state: 'UNLOADED', memoryBytes: 0 });
    await inTime(manager.acquire('a'));
    expect(manager.getModelInfo('a')).toMatchObject({ state: 'READY', loads: 2 });
  });

  it('waits for a busy model, of which no request fails', async () => {
    const { manager, load, config, alive } = setUp();
    await load('used', 60);
    const lease = await manager.acquire('used');
    const loading = manager.loadModel(config('new', 60));
    await vi.advanceTimersByTimeAsync(60_000);
    expect(alive('used')).toBe(1);
    expect(alive('new')).toBe(0);
    lease.release();
    await inTime(loading);
    expect(alive('used')).toBe(0);
  });

  it('is given up with the request that wanted it, and the busy model goes on', async () => {
    const { manager, load, config, alive } = setUp();
    await load('used', 60);
    const lease = await manager.acquire('used');
    await manager.registerModel(config('new', 60));
    const controller = new AbortController();
    const acquiring = failure(manager.acquire('new', controller));
    await settle();
    expect(manager.getModelInfo('used').state).toBe('DRAINING');
    const waiting = manager.acquire('used');
    await settle();
    controller.abort(new ManagerError('SHUT_DOWN', 'the caller is gone'));
    expect((await acquiring).code).toBe('SHUT_DOWN');
    (await waiting).release();
    lease.release();
    await settle();
    expect(alive('used')).toBe(1);
    expect(manager.getModelInfo('used').state).toBe('READY');
    expect(manager.listEvictions()).toEqual([]);
  });

  it('never is of a pinned model, nor of any where that is not wanted', async () => {
    const { manager, load, config, alive } = setUp();
    await load('kept', 50, { pinned: true });
    await load('idle', 40);
    expect((await failure(manager.loadModel(config('new', 20), { evict: false }))).code).toBe('INSUFFICIENT_MEMORY');
    expect((await failure(manager.loadModel(config('new', 60)))).code).toBe('INSUFFICIENT_MEMORY');
    expect([alive('kept'), alive('idle')]).toEqual([1, 1]);
    await load('new', 50);
    expect([alive('kept'), alive('idle'), alive('new')]).toEqual([1, 0, 1]);
  });

  it('leaves no trace of a crash that is long over', async () => {
    const { manager, load, hosts, states } = setUp();
    await load('m', 60);
    hosts[0]?.crash();
    await settle();
    expect(manager.getModelInfo('m')).toMatchObject({ state: 'LOADING', failure: "the process of 'm' ended" });
    await vi.advanceTimersByTimeAsync(START_MS);
    expect(manager.getModelInfo('m').state).toBe('READY');
    expect(states).toEqual(['m LOADING', 'm READY', 'm LOADING: MODEL_CRASHED', 'm READY']);
    await load('other', 60);
    expect(manager.getModelInfo('m').state).toBe('UNLOADED');
    expect(manager.getModelInfo('m').failure).toBe(undefined);
  });

  it('is remembered up to a thousand times', async () => {
    const { manager, load } = setUp({ maxModels: 1 });
    await load('a', 1);
    await load('b', 1);
    for (let i = 0; i < 501; i++) for (const modelId of ['a', 'b']) (await inTime(manager.acquire(modelId))).release();
    const records = manager.listEvictions();
    expect(records).toHaveLength(1_000);
    expect(records.at(-1)).toMatchObject({ modelId: 'a', forModelId: 'b' });
  });
});

describe('a load without eviction', () => {
  it('evicts when a request has joined it that may', async () => {
    const { manager, load, config, alive } = setUp();
    await load('idle', 60);
    // It may turn out to take less than was thought, so others wait for it.
    const starting = manager.loadModel(config('starting', 10));
    await settle();
    const keeping = manager.loadModel(config('new', 60), { evict: false });
    await settle();
    const acquiring = manager.acquire('new');
    await vi.advanceTimersByTimeAsync(2 * START_MS);
    await Promise.all([starting, keeping]);
    (await acquiring).release();
    expect([alive('idle'), alive('starting'), alive('new')]).toEqual([0, 1, 1]);
  });

  it('evicts when a load has joined it that may, and a model that is new stays known', async () => {
    const { manager, load, config, alive } = setUp();
    await load('idle', 60);
    const loads = [manager.loadModel(config('new', 60), { evict: false }), manager.loadModel(config('new', 60))];
    await inTime(Promise.all(loads));
    expect([alive('idle'), alive('new')]).toEqual([0, 1]);
    expect(manager.getModelInfo('new').state).toBe('READY');
  });
});

describe('keepAliveMs', () => {
  it('unloads a model that nobody has asked for that long, and not one in use', async () => {
    const { manager, load, alive, evictions } = setUp();
    await load('m', 10, { keepAliveMs: 1_000 });
    await vi.advanceTimersByTimeAsync(500);
    const lease = await manager.acquire('m');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(alive('m')).toBe(1);
    lease.release();
    await vi.advanceTimersByTimeAsync(999);
    expect(alive('m')).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(alive('m')).toBe(0);
    expect(evictions).toEqual(['m idle']);
    expect(manager.listEvictions()).toMatchObject([{ modelId: 'm', reason: 'idle', reclaimedBytes: 10 * MIB }]);
    expect(manager.listEvictions()[0]).not.toHaveProperty('forModelId');
    expect(manager.getModelInfo('m').state).toBe('UNLOADED');
    expect(vi.getTimerCount()).toBe(0);
    (await inTime(manager.acquire('m'))).release();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(manager.listEvictions()).toHaveLength(2);
  });

  it('unloads a model that was loaded and never asked for', async () => {
    const { load, alive } = setUp();
    await load('m', 10, { keepAliveMs: 1_000 });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(alive('m')).toBe(0);
  });

  it('counts from when the model was last asked for, even if in vain', async () => {
    const { manager, load, hosts, alive } = setUp();
    await load('m', 10, { keepAliveMs: 1_000 });
    hosts[0]?.crash();
    await settle();
    const controller = new AbortController();
    const acquiring = failure(manager.acquire('m', controller));
    await vi.advanceTimersByTimeAsync(START_MS / 2);
    controller.abort(new ManagerError('SHUT_DOWN', 'the caller is gone'));
    await acquiring;
    await vi.advanceTimersByTimeAsync(1_000 - START_MS / 2 - 1);
    expect(alive('m')).toBe(1);
    await vi.advanceTimersByTimeAsync(START_MS);
    expect(alive('m')).toBe(0);
  });

  it('of 0 unloads a model as soon as no one uses it, and of a pinned one nothing', async () => {
    const { manager, load, alive } = setUp();
    await load('m', 10, { keepAliveMs: 0 });
    await load('kept', 10, { keepAliveMs: 0, pinned: true });
    await manager.acquire('kept').then((lease) => lease.release());
    await vi.advanceTimersByTimeAsync(60_000);
    expect([alive('m'), alive('kept')]).toEqual([0, 1]);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('reloading', () => {
  it('puts a new process in the place of the old one, and no request fails or waits', async () => {
    const { manager, load, hosts, alive } = setUp();
    await load('m', 40);
    const old = await manager.acquire('m');
    let reloaded = false;
    const reloading = manager.reloadModel('m').then(() => (reloaded = true));
    const again = manager.reloadModel('m');
    await settle();
    const meanwhile = await manager.acquire('m');
    expect(meanwhile.model).toBe(old.model);
    await vi.advanceTimersByTimeAsync(START_MS);
    const fresh = await manager.acquire('m');
    expect(fresh.model).toBe(hosts[1]?.computeFn);
    expect(alive('m')).toBe(2);
    expect(reloaded).toBe(false);
    old.release();
    meanwhile.release();
    await Promise.all([reloading, again]);
    expect(hosts.map(({ alive }) => alive)).toEqual([false, true]);
    expect(manager.getModelInfo('m')).toMatchObject({ state: 'READY', loads: 2, leases: 1, memoryBytes: 40 * MIB });
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(40 * MIB);
    fresh.release();
    await inTime(manager.reloadModel('m'));
    await inTime(manager.reloadModel('m'));
    expect(alive('m')).toBe(1);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(40 * MIB);
  });

  it('cuts off what the old one takes too long for', async () => {
    const { manager, load, hosts } = setUp();
    await load('m', 40);
    await manager.acquire('m');
    const reloading = manager.reloadModel('m', { graceMs: 100 });
    await vi.advanceTimersByTimeAsync(START_MS + 99);
    expect(hosts[0]?.alive).toBe(true);
    await vi.advanceTimersByTimeAsync(1);
    expect(hosts[0]?.alive).toBe(false);
    await reloading;
  });

  it('keeps the old one when the new one cannot be started, or has no room', async () => {
    const { manager, load, world, hosts } = setUp();
    await load('m', 40);
    const lease = await manager.acquire('m');
    world.broken = new ManagerError('MODEL_LOAD_FAILED', 'damaged');
    world.revision = 'new';
    expect(await failure(inTime(manager.reloadModel('m')))).toBe(world.broken);
    expect(manager.getModelInfo('m')).toMatchObject({ state: 'READY', loads: 1, revision: 'old' });
    expect((await manager.acquire('m')).model).toBe(lease.model);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(40 * MIB);
    world.broken = undefined;
    await load('kept', 30, { pinned: true });
    expect((await failure(manager.reloadModel('m'))).code).toBe('INSUFFICIENT_MEMORY');
    expect(hosts[0]?.alive).toBe(true);
  });

  it('mends a model that has crashed too often', async () => {
    const { manager, load, world, hosts, alive } = setUp();
    await load('m', 40);
    world.broken = new ManagerError('MODEL_LOAD_FAILED', 'damaged');
    hosts[0]?.crash();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(manager.getModelInfo('m').state).toBe('FAILED');
    expect((await failure(manager.acquire('m'))).code).toBe('MODEL_FAILED');
    world.broken = undefined;
    await inTime(manager.reloadModel('m'));
    (await manager.acquire('m')).release();
    expect(manager.getModelInfo('m').failure).toBe(undefined);
    await vi.advanceTimersByTimeAsync(600_000);
    expect(alive('m')).toBe(1);
  });

  it('leaves no process behind when the model is evicted and asked for before it has its turn', async () => {
    const { manager, load, hosts, alive } = setUp();
    await load('used', 60);
    await load('m', 30, { keepAliveMs: 100 });
    const lease = await manager.acquire('used');
    const reloading = manager.reloadModel('m');
    await vi.advanceTimersByTimeAsync(100);
    expect(hosts).toHaveLength(2);
    const acquiring = manager.acquire('m');
    await settle();
    lease.release();
    await vi.advanceTimersByTimeAsync(10 * START_MS);
    const fresh = await acquiring;
    await reloading;
    fresh.release();
    await settle();
    expect(alive('m')).toBe(1);
    await manager.shutdown();
    expect(hosts.filter((host) => host.alive)).toEqual([]);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(0);
  });

  it.each(['waits for it', 'looks for its files'])(
    'begins no life of a model that is forgotten when its first load fails while the reload %s',
    async (what) => {
      const { manager, world, config, hosts } = setUp();
      const broken = new ManagerError('MODEL_LOAD_FAILED', 'damaged');
      world.broken = broken;
      const loading = failure(manager.loadModel(config('m', 10)));
      await settle();
      let found!: () => void;
      if (what === 'looks for its files') world.locating = new Promise((resolve) => (found = resolve));
      else found = () => {};
      const reloading = failure(manager.reloadModel('m'));
      await vi.advanceTimersByTimeAsync(START_MS);
      expect(await loading).toBe(broken);
      world.broken = undefined;
      found();
      expect((await inTime(reloading)).code).toBe('MODEL_NOT_FOUND');
      expect(hosts).toEqual([]);
      expect(manager.modelIds()).toEqual([]);
      expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(0);
    },
  );

  it('loads a model that is not loaded', async () => {
    const { manager, config, alive, world } = setUp();
    await manager.registerModel(config('m', 10));
    await inTime(manager.reloadModel('m'));
    expect(alive('m')).toBe(1);
    expect(world.located).toBe(2);
    expect((await failure(manager.reloadModel('other'))).code).toBe('MODEL_NOT_FOUND');
  });
});

describe('unloading', () => {
  it('ends a model and forgets it', async () => {
    const { manager, load, alive, states } = setUp();
    await load('m', 40);
    const lease = await manager.acquire('m');
    const unloading = manager.unloadModel('m');
    await vi.advanceTimersByTimeAsync(100);
    expect((await failure(manager.acquire('m'))).code).toBe('MODEL_DRAINING');
    expect((await failure(manager.unloadModel('m'))).code).toBe('MODEL_DRAINING');
    lease.release();
    expect(await unloading).toEqual({ modelId: 'm', interrupted: 0, reclaimedBytes: 40 * MIB, durationMs: 100 });
    expect(alive('m')).toBe(0);
    expect(manager.getModel('m')).toBe(undefined);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(0);
    expect(states).toEqual(['m LOADING', 'm READY', 'm DRAINING', 'm UNLOADED']);
    expect((await failure(manager.acquire('m'))).code).toBe('MODEL_NOT_FOUND');
    expect((await failure(manager.unloadModel('m'))).code).toBe('MODEL_NOT_FOUND');
  });

  it('cuts off requests after graceMs', async () => {
    const { manager, load } = setUp();
    await load('m', 40);
    await manager.acquire('m');
    const unloading = manager.unloadModel('m', { graceMs: 50 });
    await vi.advanceTimersByTimeAsync(50);
    expect((await unloading).interrupted).toBe(1);
  });

  it('of a model that is being reloaded ends both its lives, and counts what both had', async () => {
    const { manager, load, alive } = setUp();
    await load('m', 40);
    await manager.acquire('m');
    const reloading = manager.reloadModel('m');
    await vi.advanceTimersByTimeAsync(START_MS);
    await manager.acquire('m');
    const unloading = manager.unloadModel('m', { graceMs: 10 });
    await vi.advanceTimersByTimeAsync(10);
    expect(await unloading).toMatchObject({ interrupted: 2, reclaimedBytes: 80 * MIB });
    await reloading;
    expect(alive('m')).toBe(0);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(0);
  });

  it('of a model that is not loaded forgets it', async () => {
    const { manager, config, states } = setUp();
    await manager.registerModel(config('m', 40));
    expect(await manager.unloadModel('m')).toEqual({ modelId: 'm', interrupted: 0, reclaimedBytes: 0, durationMs: 0 });
    expect(manager.modelIds()).toEqual([]);
    expect(states).toEqual([]);
  });

  it('tells those who wait for the model', async () => {
    const { manager, config, hosts } = setUp();
    await manager.registerModel(config('m', 40));
    const acquiring = failure(manager.acquire('m'));
    const loading = failure(manager.loadModel(config('m', 40)));
    await vi.advanceTimersByTimeAsync(START_MS / 2);
    await manager.unloadModel('m');
    expect((await acquiring).code).toBe('MODEL_DRAINING');
    expect((await loading).code).toBe('MODEL_DRAINING');
    await vi.advanceTimersByTimeAsync(START_MS);
    expect(hosts).toEqual([]);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(0);
  });

  it('of a model that waits for room gives the room to whoever comes next', async () => {
    const { manager, load, config, hosts, alive } = setUp();
    await load('used', 60);
    const lease = await manager.acquire('used');
    const loading = failure(manager.loadModel(config('m', 60)));
    await settle();
    expect(manager.getModelInfo('used').state).toBe('DRAINING');
    await manager.unloadModel('m');
    expect((await loading).code).toBe('MODEL_DRAINING');
    expect(manager.getModelInfo('used').state).toBe('READY');
    lease.release();
    await load('next', 40);
    expect([alive('used'), alive('next')]).toEqual([1, 1]);
    expect(hosts).toHaveLength(2);
    expect(manager.modelIds()).toEqual(['used', 'next']);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(100 * MIB);
  });

  it('of a model that waits for its turn begins nothing, and its id is free at once', async () => {
    const { manager, load, config, alive } = setUp();
    await load('used', 60);
    const lease = await manager.acquire('used');
    const first = manager.loadModel(config('first', 60));
    const loading = failure(manager.loadModel(config('m', 10)));
    await settle();
    await manager.unloadModel('m');
    const again = manager.loadModel(config('m', 20));
    await settle();
    lease.release();
    await vi.advanceTimersByTimeAsync(2 * START_MS);
    expect((await loading).code).toBe('MODEL_DRAINING');
    await Promise.all([first, again]);
    expect([alive('first'), alive('m')]).toEqual([1, 1]);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(80 * MIB);
  });

  it('of a model whose reload waits for room gives the room back', async () => {
    const { manager, load, hosts } = setUp();
    await load('used', 60);
    await load('m', 30);
    const lease = await manager.acquire('used');
    const reloading = failure(manager.reloadModel('m'));
    await settle();
    expect(manager.getModelInfo('used').state).toBe('DRAINING');
    await manager.unloadModel('m');
    expect((await reloading).code).toBe('MODEL_DRAINING');
    expect(manager.getModelInfo('used').state).toBe('READY');
    lease.release();
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(60 * MIB);
    expect(hosts).toHaveLength(2);
  });

  it('of a model that is being evicted waits for its requests no longer than it may', async () => {
    const { manager, load, config, alive } = setUp();
    await load('m', 60);
    await manager.acquire('m');
    const loading = manager.loadModel(config('new', 60));
    await vi.advanceTimersByTimeAsync(1_000);
    const waiting = failure(manager.acquire('m'));
    const unloading = manager.unloadModel('m', { graceMs: 100 });
    expect((await waiting).code).toBe('MODEL_DRAINING');
    await vi.advanceTimersByTimeAsync(100);
    expect(await unloading).toMatchObject({ interrupted: 1, reclaimedBytes: 60 * MIB });
    await inTime(loading);
    expect([alive('m'), alive('new')]).toEqual([0, 1]);
    expect(manager.listEvictions()).toEqual([]);
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(60 * MIB);
  });

  it('makes room that a load waits for', async () => {
    const { manager, load, config } = setUp();
    await load('leaving', 60, { pinned: true });
    const lease = await manager.acquire('leaving');
    const unloading = manager.unloadModel('leaving');
    const loading = manager.loadModel(config('new', 60));
    await vi.advanceTimersByTimeAsync(1_000);
    lease.release();
    await unloading;
    expect((await inTime(loading)).state).toBe('READY');
    expect(manager.listEvictions()).toEqual([]);
  });
});

describe('shutting down', () => {
  it('unloads all models and refuses to load any more', async () => {
    const { manager, load, config, alive } = setUp();
    await load('a', 10);
    await load('b', 10, { keepAliveMs: 1_000 });
    await manager.registerModel(config('c', 10));
    const lease = await manager.acquire('a');
    const unloading = manager.unloadModel('b');
    const closing = manager.shutdown({ graceMs: 100 });
    await vi.advanceTimersByTimeAsync(99);
    expect(alive('a')).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    await Promise.all([closing, unloading]);
    lease.release();
    expect([alive('a'), alive('b')]).toEqual([0, 0]);
    expect(manager.modelIds()).toEqual([]);
    expect((await failure(manager.loadModel(config('d', 1)))).code).toBe('SHUT_DOWN');
    expect((await failure(manager.registerModel(config('d', 1)))).code).toBe('SHUT_DOWN');
    expect(manager.resourceManager.getCurrentUsage().reservedBytes).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
    await manager.shutdown();
  });
});

describe('a listener', () => {
  it('that fails is reported, and harms no model', async () => {
    const { manager, load, logger } = setUp();
    manager.on('state', () => {
      throw new Error('what a listener');
    });
    await load('m', 10);
    expect(manager.getModelInfo('m').state).toBe('READY');
    expect(logger.error).toHaveBeenCalledWith(
      expect.stringMatching(/^a listener of 'state' failed: .*what a listener/),
    );
  });
});

describe('a host', () => {
  it('is given what the configuration says, and its share of the threads', async () => {
    const { load, hosts } = setUp({ maxMessageLength: 5 });
    const more = { instances: 2, threads: 3, maxQueue: 4, task: 't', maxMemoryBytes: 9, warmup: false };
    await load('m', 10, more);
    expect(hosts.map(({ options }) => options)).toEqual(
      Array(2).fill({
        ...{ modelId: 'm', engine: 'onnx', folder: '/', file: '/m.onnx', device: 'cpu', threads: 3 },
        ...{ maxQueue: 4, task: 't', maxMemoryBytes: 9, warmup: false, maxMessageLength: 5 },
      }),
    );
    await load('plain', 10);
    expect(hosts[2]?.options).not.toHaveProperty('task');
    expect(hosts[2]?.options).not.toHaveProperty('maxMemoryBytes');
  });
});
