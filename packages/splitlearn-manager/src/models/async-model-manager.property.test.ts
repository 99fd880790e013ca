// Random lives of some models in virtual time: whatever is asked for in whatever order, what the manager promises holds.
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { FakeHost, MIB } from '../../test/support/models.js';
import { ManagerError } from '../errors.js';
import type { HostOptions, ModelHost } from '../hosts/model-host.js';
import { machineProbes } from '../resources/probes.js';
import { ResourceManager } from '../resources/resource-manager.js';
import type { LocatedModel } from '../sources/local.js';
import { AsyncModelManager } from './async-model-manager.js';
import type { ModelLease } from './lease.js';
import type { ModelConfig, ResolvedModelConfig } from './model-config.js';

const RUNS = 10_000;
/** What is refused where there is no room. */
const NO_ROOM = new Set<string>(['INSUFFICIENT_MEMORY', 'TOO_MANY_MODELS']);
/** The one load that may be refused although there would be room. */
const LOAD_WITHOUT_EVICTION = 'load-without-eviction';
const QUIET = { warn() {}, error() {} };

/** A host that tells when it ends while it is in use. */
class WatchedHost extends FakeHost {
  readonly modelId: string;
  leases = 0;
  readonly #world: World;

  constructor(world: World, modelId: string, bytes: number) {
    super(modelId, bytes);
    this.modelId = modelId;
    this.#world = world;
  }

  override async stop(): Promise<void> {
    if (this.leases > 0 && !this.#world.cutOffs.has(this.modelId)) this.#world.wrong.push(`${this.modelId}: in use`);
    await super.stop();
  }
}

interface Setting {
  readonly models: readonly { mib: number; pinned: boolean; keepAliveMs: number | undefined; instances: number }[];
  readonly limitMib: number;
  readonly maxModels: number;
}

/** A manager, its models, and all that is checked of them. */
class World {
  readonly hosts: WatchedHost[] = [];
  readonly leases: { lease: ModelLease; host: WatchedHost }[] = [];
  /** Models whose requests may be cut off now, because somebody said so. */
  readonly cutOffs = new Set<string>();
  readonly wrong: string[] = [];
  readonly manager: AsyncModelManager;
  readonly resources: ResourceManager;
  readonly #setting: Setting;
  readonly pending = new Set<string>();
  #failing = false;
  #calls = 0;

  constructor(setting: Setting) {
    this.#setting = setting;
    const memoryLimitBytes = setting.limitMib * MIB;
    const probes = { ...machineProbes, availableMemoryBytes: () => 2 ** 50, totalMemoryBytes: () => 2 ** 50 };
    this.resources = new ResourceManager({ memoryLimitBytes, probes });
    const { resources: resourceManager } = this;
    const options = { resourceManager, maxModels: setting.maxModels, logger: QUIET };
    this.manager = new AsyncModelManager(options, {
      every: () => () => {},
      estimateNeed: async ({ instances }, { fileBytes }) => ({
        memoryBytes: instances * fileBytes,
        parts: { weights: instances * fileBytes, runtime: 0, cache: 0 },
      }),
      locateModel: async (config) => this.#locate(config),
      startHost: async (_, hostOptions, __, signal) => this.#startHost(hostOptions, signal),
    });
    this.manager.on('eviction', ({ modelId }) => {
      if (this.#model(modelId).pinned) this.wrong.push(`${modelId}: evicted although it is pinned`);
    });
  }

  config(index: number): ModelConfig {
    const modelId = String(index % this.#setting.models.length);
    const { pinned, keepAliveMs, instances } = this.#model(modelId);
    const idle = keepAliveMs !== undefined && { keepAliveMs };
    return { modelId, source: modelId, isolation: 'thread', pinned, instances, ...idle };
  }

  /** Follows a promise: it has to come to an end, whichever. */
  follow<T>(what: string, work: Promise<T>, done: (value: T) => void = () => {}): void {
    const name = `${what} #${this.#calls++}`;
    this.pending.add(name);
    work.then(done, (error) => this.#expectTyped(name, error)).finally(() => this.pending.delete(name));
  }

  acquire(modelId: string, patienceMs: number): void {
    const patience = new AbortController();
    const timer = setTimeout(() => patience.abort(new ManagerError('SHUT_DOWN', 'too late')), patienceMs);
    const acquiring = this.manager.acquire(modelId, patience).finally(() => clearTimeout(timer));
    this.follow(`acquire ${modelId}`, acquiring, (lease) => {
      const host = this.hosts.find(({ computeFn }) => computeFn === lease.model);
      if (!host?.alive) this.wrong.push(`${modelId}: a lease on a host that has gone`);
      if (!host) return;
      host.leases++;
      this.leases.push({ lease, host });
    });
  }

  release(index: number): void {
    const [taken] = this.leases.splice(index % Math.max(1, this.leases.length), 1);
    if (!taken) return;
    taken.host.leases--;
    taken.lease.release();
  }

  /** Whether hosts that are started from now on fail. */
  failHosts(failing: boolean): void {
    this.#failing = failing;
  }

  check(): void {
    expect(this.wrong).toEqual([]);
    const { reservedBytes, memoryLimitBytes } = this.resources.getCurrentUsage();
    expect(reservedBytes).toBeLessThanOrEqual(memoryLimitBytes);
    const alive = new Map<string, number>();
    for (const host of this.hosts) if (host.alive) alive.set(host.modelId, (alive.get(host.modelId) ?? 0) + 1);
    expect(alive.size).toBeLessThanOrEqual(this.#setting.maxModels);
    // Twice: while it is reloaded, there are two of it.
    for (const [modelId, hosts] of alive) expect(hosts).toBeLessThanOrEqual(2 * this.#model(modelId).instances);
  }

  #model(modelId: string) {
    return this.#setting.models[Number(modelId)] ?? raise();
  }

  #locate({ source }: ResolvedModelConfig): LocatedModel {
    const { mib } = this.#model(source);
    return { modelId: source, engine: 'onnx', folder: '/', file: '/m.onnx', fileBytes: mib * MIB };
  }

  async #startHost({ modelId }: HostOptions, signal: AbortSignal): Promise<ModelHost> {
    const fails = this.#failing;
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(resolve, 20);
      signal.addEventListener('abort', () => {
        clearTimeout(timer);
        reject(signal.reason);
      });
    });
    if (fails) throw new ManagerError('MODEL_LOAD_FAILED', 'damaged');
    const host = new WatchedHost(this, modelId, this.#model(modelId).mib * MIB);
    this.hosts.push(host);
    return host;
  }

  #expectTyped(name: string, error: unknown): void {
    if (!(error instanceof ManagerError)) this.wrong.push(`${name}: ${(error as Error)?.stack ?? error}`);
    else if (NO_ROOM.has(error.code) && !this.#mayLackRoom(name)) this.wrong.push(`${name}: ${error.message}`);
  }

  /** Whether there may be no room for a model even when all that may go are gone. */
  #mayLackRoom(name: string): boolean {
    const [what, modelId] = name.split(' ');
    const others = this.#setting.models.some(({ pinned }, other) => pinned && String(other) !== modelId);
    const { mib, instances } = this.#model(modelId ?? '');
    return what === 'reload' || what === LOAD_WITHOUT_EVICTION || others || mib * instances > this.#setting.limitMib;
  }
}

type Step = (world: World) => void;

const index = fc.nat(3);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.tuple(index, fc.constantFrom(0, 5, 60_000)).map(([i, ms]) => acquireStep(i, ms)) },
  {
    weight: 6,
    arbitrary: fc.nat(20).map(
      (i): Step =>
        (world) =>
          world.release(i),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.tuple(index, fc.constantFrom(true, true, false)).map(([i, evict]) => loadStep(i, evict)),
  },
  { weight: 1, arbitrary: fc.tuple(index, fc.constantFrom(0, 50)).map(([i, graceMs]) => unloadStep(i, graceMs)) },
  { weight: 1, arbitrary: index.map(reloadStep) },
  {
    weight: 1,
    arbitrary: fc.nat(20).map(
      (i): Step =>
        (world) =>
          world.hosts.filter(({ alive }) => alive)[i]?.crash(),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.boolean().map(
      (failing): Step =>
        (world) =>
          world.failHosts(failing),
    ),
  },
);
const steps = fc.array(fc.tuple(step, fc.constantFrom(0, 0, 0, 5, 25, 200)), { minLength: 1, maxLength: 30 });
const setting = fc.record({
  models: fc.array(
    fc.record({
      mib: fc.constantFrom(10, 20, 30, 60),
      pinned: fc.boolean(),
      keepAliveMs: fc.constantFrom(undefined, undefined, 0, 100),
      instances: fc.constantFrom(1, 1, 2),
    }),
    { minLength: 1, maxLength: 4 },
  ),
  limitMib: fc.constantFrom(50, 100, 1_000),
  maxModels: fc.integer({ min: 1, max: 4 }),
});

function acquireStep(index: number, patienceMs: number): Step {
  return (world) => world.acquire(world.config(index).modelId ?? '', patienceMs);
}

function loadStep(index: number, evict: boolean): Step {
  return (world) => {
    const config = world.config(index);
    const what = evict ? 'load' : LOAD_WITHOUT_EVICTION;
    world.follow(`${what} ${config.modelId}`, world.manager.loadModel(config, { evict }));
  };
}

function unloadStep(index: number, graceMs: number): Step {
  return (world) => {
    const { modelId = '' } = world.config(index);
    const begins = world.manager.getModel(modelId) !== undefined && !world.cutOffs.has(modelId);
    if (begins) world.cutOffs.add(modelId);
    const unloading = world.manager.unloadModel(modelId, { graceMs });
    world.follow(`unload ${modelId}`, begins ? unloading.finally(() => world.cutOffs.delete(modelId)) : unloading);
  };
}

function reloadStep(index: number): Step {
  return (world) => {
    const { modelId = '' } = world.config(index);
    world.follow(`reload ${modelId}`, world.manager.reloadModel(modelId, { graceMs: Number.POSITIVE_INFINITY }));
  };
}

function raise(): never {
  throw new Error('no such model');
}

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'Date'] }));
afterEach(() => void vi.useRealTimers());

it('keeps its promises in any order of events', { timeout: 300_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(setting, steps, async (given, events) => {
      vi.clearAllTimers();
      const world = new World(given);
      for (let i = 0; i < given.models.length; i++)
        world.follow(`register ${i}`, world.manager.registerModel(world.config(i)));
      await vi.advanceTimersByTimeAsync(0);
      for (const [event, thenMs] of events) {
        event(world);
        await vi.advanceTimersByTimeAsync(thenMs);
        world.check();
      }
      // When all leases are given back, nobody waits for ever.
      for (let round = 0; round < 50 && world.pending.size > 0; round++) {
        while (world.leases.length > 0) world.release(0);
        await vi.advanceTimersByTimeAsync(5_000);
        world.check();
      }
      expect([...world.pending]).toEqual([]);
      while (world.leases.length > 0) world.release(0);
      await world.manager.shutdown({ graceMs: 0 });
      await vi.advanceTimersByTimeAsync(0);
      expect(world.hosts.filter(({ alive }) => alive)).toEqual([]);
      expect(world.resources.getCurrentUsage()).toMatchObject({ reservedBytes: 0, reservedThreads: 0 });
      expect(world.wrong).toEqual([]);
      expect(vi.getTimerCount()).toBe(0);
    }),
    { numRuns: Number(process.env.RUNS ?? RUNS) },
  );
});
