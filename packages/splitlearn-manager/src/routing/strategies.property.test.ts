// What each strategy promises, for whatever targets and whatever happens to them.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  countPicks,
  FakeModels,
  fail,
  MODEL_STATES,
  randomNumbers,
  routing,
  succeed,
} from '../../test/support/routing.js';
import type { RoutableModels } from './model-router.js';
import type { Route } from './route.js';
import { RouteStrategy } from './route-config.js';

const strategy = fc.constantFrom(...RouteStrategy.options);
const someTargets = fc
  .integer({ min: 2, max: 8 })
  .map((count) => Array.from({ length: count }, (_, index) => `m${index}`));
const state = fc.constantFrom(...MODEL_STATES);

function toAll(modelIds: readonly string[], others: Omit<Route, 'targets'> = {}): Route {
  return { ...others, targets: modelIds.map((model) => ({ model })) };
}

describe('weighted', () => {
  const PICKS = 10_000;
  /** As far as a share may be from its weight. */
  const TOLERANCE = 0.02;

  it('picks each target as often as its weight says, within 2 % of 10,000 picks', () => {
    const weight = fc.oneof(fc.integer({ min: 0, max: 100 }), fc.double({ min: 0.01, max: 100, noNaN: true }));
    const weights = fc.array(weight, { minLength: 1, maxLength: 8 }).filter((all) => all.some((one) => one > 0));
    fc.assert(
      fc.property(weights, (all) => {
        const targets = all.map((one, index) => ({ model: `m${index}`, weight: one }));
        const models = new FakeModels(...targets.map(({ model }) => model));
        const { router } = routing(models, { canary: { targets } });
        const counts = countPicks(router, 'canary', PICKS);
        const total = all.reduce((sum, one) => sum + one, 0);
        for (const { model, weight: share } of targets) {
          const expected = (PICKS * share) / total;
          expect(Math.abs((counts.get(model) ?? 0) - expected)).toBeLessThanOrEqual(TOLERANCE * PICKS);
          // And in fact: never more than the number of targets away.
          expect(Math.abs((counts.get(model) ?? 0) - expected)).toBeLessThanOrEqual(all.length);
        }
      }),
      { numRuns: 100 },
    );
  });

  it('spreads the requests of a target evenly', () => {
    const targets = [
      { model: 'old', weight: 9 },
      { model: 'new', weight: 1 },
    ];
    const { router } = routing(new FakeModels('old', 'new'), { canary: { targets } });
    for (let round = 0; round < 100; round++) expect(countPicks(router, 'canary', 10).get('new')).toBe(1);
  });

  it('gives the share of a target that does not answer to the others, by their weights', () => {
    const targets = [
      { model: 'a', weight: 1 },
      { model: 'b', weight: 3 },
      { model: 'c', weight: 4 },
    ];
    const { router, models } = routing(new FakeModels('a', 'b', 'c'), { r: { targets } });
    models.get('c').state = 'LOADING';
    expect(countPicks(router, 'r', 400)).toEqual(
      new Map([
        ['a', 100],
        ['b', 300],
      ]),
    );
  });
});

describe('a target of weight 0', () => {
  it('gets nothing, even where no other answers', () => {
    const { router, models } = routing(new FakeModels('a', 'b'), {
      r: {
        targets: [
          { model: 'a', weight: 1 },
          { model: 'b', weight: 0 },
        ],
      },
    });
    models.get('a').state = 'FAILED';
    expect(countPicks(router, 'r', 10)).toEqual(new Map([['a', 10]]));
  });
});

describe('round-robin', () => {
  it('gives each target its turn, and never leaves its route, whatever other models there are', () => {
    fc.assert(
      fc.property(someTargets, fc.integer({ min: 0, max: 5 }), (modelIds, others) => {
        const strangers = Array.from({ length: others }, (_, index) => `stranger${index}`);
        const models = new FakeModels(...strangers, ...modelIds);
        const { router } = routing(models, { r: toAll(modelIds, { strategy: 'round-robin' }) });
        for (let round = 0; round < 5; round++) {
          const counts = countPicks(router, 'r', modelIds.length);
          expect([...counts.keys()].sort()).toEqual([...modelIds].sort());
        }
      }),
    );
  });

  it('gives those that are ready equal turns while others come and go', () => {
    const { router, models } = routing(new FakeModels('a', 'b', 'c'), {
      r: toAll(['a', 'b', 'c'], { strategy: 'round-robin' }),
    });
    models.get('b').state = 'LOADING';
    expect(countPicks(router, 'r', 100)).toEqual(
      new Map([
        ['a', 50],
        ['c', 50],
      ]),
    );
    models.get('b').state = 'READY';
    expect(new Set(countPicks(router, 'r', 3).values())).toEqual(new Set([1]));
  });
});

describe('sticky', () => {
  const keys = Array.from({ length: 2_000 }, (_, index) => `user-${index * 7919}`);

  function homes(modelIds: readonly string[]): Map<string, string> {
    const { router } = routing(new FakeModels(...modelIds), { r: toAll(modelIds, { strategy: 'sticky' }) });
    return new Map(
      keys.map((key) => [key, router.routeToModel({ model: 'r' }, { metadata: { 'splitlearn-session': key } })]),
    );
  }

  it('sends a key to the same target as long as that is there, whatever else happens', () => {
    fc.assert(
      fc.property(
        someTargets,
        fc.string({ minLength: 1 }),
        fc.array(state, { minLength: 8, maxLength: 8 }),
        (modelIds, key, states) => {
          const { router, models } = routing(new FakeModels(...modelIds), {
            r: toAll(modelIds, { strategy: 'sticky' }),
          });
          const pick = () => router.routeToModel({ model: 'r' }, { metadata: { 'splitlearn-session': key } });
          const home = pick();
          for (const [index, modelId] of modelIds.entries()) {
            if (modelId === home) continue;
            Object.assign(models.get(modelId), { state: states[index], inFlight: index });
            expect(pick()).toBe(home);
          }
          models.get(home).state = 'UNLOADED';
          const away = pick();
          if (modelIds.some((modelId) => models.get(modelId).state === 'READY')) expect(away).not.toBe(home);
          models.get(home).state = 'READY';
          expect(pick()).toBe(home);
        },
      ),
    );
  });

  it.each([2, 3, 5, 8])(
    'moves at most about 1/n of the keys when the last of %i targets is added, and only to that',
    (count) => {
      const modelIds = Array.from({ length: count }, (_, index) => `replica-${index}`);
      const added = modelIds.at(-1);
      const before = homes(modelIds.slice(0, -1));
      const after = homes(modelIds);
      const moved = keys.filter((key) => before.get(key) !== after.get(key));
      expect(moved.length / keys.length).toBeLessThan(1.2 / count);
      expect(moved.length / keys.length).toBeGreaterThan(0.8 / count);
      // What moves when it is removed again are the same ones.
      expect(new Set(moved.map((key) => after.get(key)))).toEqual(new Set([added]));
      expect(moved.length).toBe([...after.values()].filter((home) => home === added).length);
    },
  );

  it('does not go by the order in which the targets are written', () => {
    expect(homes(['c', 'a', 'b'])).toEqual(homes(['a', 'b', 'c']));
  });

  it('goes by the key of the route, else by the client, and without either to the one that has the least to do', () => {
    const models = new FakeModels('a', 'b', 'c');
    const { router } = routing(models, { r: toAll(['a', 'b', 'c'], { strategy: 'sticky', stickyKey: 'x-user' }) });
    const homeOf = (metadata?: Record<string, string>) => router.routeToModel({ model: 'r' }, metadata && { metadata });
    const byUser = keys.slice(0, 50).map((key) => homeOf({ 'x-user': key, 'splitlearn-client': 'same' }));
    expect(new Set(byUser).size).toBe(3);
    const byClient = keys.slice(0, 50).map((key) => homeOf({ 'splitlearn-client': key }));
    expect(byClient).toEqual(byUser);
    Object.assign(models.get('a'), { inFlight: 2 });
    Object.assign(models.get('c'), { inFlight: 2 });
    for (const metadata of [undefined, {}, { 'splitlearn-session': 'not this one' }])
      expect(homeOf(metadata)).toBe('b');
  });
});

describe('random', () => {
  it('takes the better one of two, so that the busiest of all gets nothing', () => {
    const models = new FakeModels('a', 'b', 'c', 'd');
    const { router } = routing(
      models,
      { r: toAll(['a', 'b', 'c', 'd'], { strategy: 'random' }) },
      { random: randomNumbers(1) },
    );
    models.get('c').inFlight = 5;
    const counts = countPicks(router, 'r', 6_000);
    expect(counts.has('c')).toBe(false);
    for (const modelId of ['a', 'b', 'd']) expect(Math.abs((counts.get(modelId) ?? 0) - 2_000)).toBeLessThan(200);
  });
});

describe('least-loaded', () => {
  it('goes by how long requests take, and not only by how many there are', async () => {
    const { router, models } = routing(new FakeModels('slow', 'fast'), { r: toAll(['slow', 'fast']) });
    const timing =
      (computeMs: number, batchSize = 1) =>
      async () => ({ timing: { queueMs: 0, computeMs, batchSize } });
    await router.track('slow', timing(100));
    await router.track('fast', timing(160, 8));
    models.get('slow').inFlight = 1;
    models.get('fast').inFlight = 8;
    expect(router.routeToModel({ model: 'r' })).toBe('fast');
    models.get('fast').inFlight = 11;
    expect(router.routeToModel({ model: 'r' })).toBe('slow');
    models.get('fast').instances = 2;
    expect(router.routeToModel({ model: 'r' })).toBe('fast');
  });

  it('tries a target again some time after it was slow', async () => {
    const { router, clock } = routing(new FakeModels('a', 'b'), { r: toAll(['a', 'b']) });
    const take = (ms: number) => async () => {
      clock.ms += ms;
      return {};
    };
    await router.track('a', take(1_000));
    await router.track('b', take(10));
    const later = async () => {
      clock.ms += 10_000;
      await router.track('b', take(10));
      return router.routeToModel({ model: 'r' });
    };
    expect(await later()).toBe('b');
    const picks = [];
    for (let time = 0; time < 8; time++) picks.push(await later());
    expect(picks).toContain('a');
  });

  it('does not take a target for quick that has been busy with one request for long', async () => {
    const { router, models, clock } = routing(new FakeModels('stuck', 'busy'), { r: toAll(['stuck', 'busy']) });
    const timing = async () => ({ timing: { queueMs: 0, computeMs: 10 } });
    await router.track('stuck', timing);
    models.get('stuck').inFlight = 1;
    clock.ms += 60_000;
    await router.track('busy', timing);
    models.get('busy').inFlight = 1;
    expect(new Set(countPicks(router, 'r', 10).values())).toEqual(new Set([5]));
  });

  it('takes turns between those that are alike', () => {
    const { router } = routing(new FakeModels('a', 'b', 'c'), { r: toAll(['a', 'b', 'c']) });
    expect(new Set(countPicks(router, 'r', 300).values())).toEqual(new Set([100]));
  });
});

describe('resource-aware', () => {
  const MIB = 2 ** 20;

  /** Each GPU with so much free memory of 1000, and a model of its number on it. */
  function onGpus(...free: number[]) {
    const models = new FakeModels(...free.map((_, index) => `gpu${index}`));
    const gpus = free.map((freeBytes, index) => ({
      index,
      name: '',
      totalBytes: 1_000,
      usedBytes: 0,
      freeBytes,
      reservedBytes: 0,
    }));
    const usage = {
      memoryLimitBytes: 1_000,
      reservedBytes: 0,
      usedBytes: 0,
      availableBytes: 1_000,
      cores: 1,
      reservedThreads: 1,
      gpus,
    };
    let asked = 0;
    const resourceManager: NonNullable<RoutableModels['resourceManager']> = {
      getCurrentUsage: () => {
        asked++;
        return usage;
      },
      getReservation: (modelId) => ({ memoryBytes: MIB, threads: 1, device: modelId.replace('gpu', 'cuda:') }),
    };
    Object.assign(models, { resourceManager });
    const route = toAll(models.modelIds(), { strategy: 'resource-aware' });
    return { ...routing(models, { r: route }), usage, asked: () => asked };
  }

  it('prefers the device with the most free memory, for each of its requests', () => {
    const { router, models } = onGpus(200, 600, 500);
    const next = () => router.routeToModel({ model: 'r' });
    expect(next()).toBe('gpu1');
    models.get('gpu1').inFlight = 1;
    expect(next()).toBe('gpu2');
    models.get('gpu2').inFlight = 1;
    expect(next()).toBe('gpu1');
    models.get('gpu1').inFlight = 3;
    models.get('gpu2').inFlight = 2;
    expect(next()).toBe('gpu0');
  });

  it('counts what a model has left of its own limit', () => {
    const { router, models } = onGpus(900, 900);
    Object.assign(models.get('gpu0'), { memoryBytes: 90, memoryLimitBytes: 100 });
    Object.assign(models.get('gpu1'), { memoryBytes: 80, memoryLimitBytes: 100 });
    expect(router.routeToModel({ model: 'r' })).toBe('gpu1');
  });

  it('prefers a model that is loaded to one that has more room', () => {
    const { router, models } = onGpus(10, 990);
    models.get('gpu1').state = 'UNLOADED';
    expect(router.routeToModel({ model: 'r' })).toBe('gpu0');
  });

  it('loads the smallest one where none is loaded', () => {
    const { router, models } = onGpus(500, 500);
    Object.assign(models.get('gpu0'), { state: 'UNLOADED', reservationId: undefined, fileBytes: 800 });
    Object.assign(models.get('gpu1'), { state: 'UNLOADED', reservationId: undefined, fileBytes: 300 });
    expect(router.routeToModel({ model: 'r' })).toBe('gpu1');
  });

  it('asks the machine at most once a second', () => {
    const { router, clock, asked } = onGpus(500, 500);
    countPicks(router, 'r', 100);
    expect(asked()).toBe(1);
    clock.ms += 1_000;
    countPicks(router, 'r', 100);
    expect(asked()).toBe(2);
  });
});

describe('whatever the strategy', () => {
  /** One thing that happens. */
  const event = fc.record({
    modelIndex: fc.nat(7),
    state,
    leaving: fc.boolean(),
    inFlight: fc.nat(20),
    waitMs: fc.nat(3_000),
    fails: fc.boolean(),
  });

  it('no request goes to a target that is not READY while there is one that is, or outside of its route', () => {
    fc.assert(
      fc.property(strategy, someTargets, fc.array(event, { maxLength: 40 }), (name, modelIds, events) => {
        const models = new FakeModels('stranger', ...modelIds);
        const { router } = routing(models, { r: toAll(modelIds, { strategy: name }) });
        for (const { modelIndex, state, leaving, inFlight } of events) {
          Object.assign(models.get(modelIds[modelIndex % modelIds.length] as string), { state, leaving, inFlight });
          const picked = router.routeToModel({ model: 'r' }, { metadata: { 'splitlearn-client': String(inFlight) } });
          expect(modelIds).toContain(picked);
          const isReady = (modelId: string) => models.get(modelId).state === 'READY' && !models.get(modelId).leaving;
          if (modelIds.some(isReady)) expect(isReady(picked)).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });

  it('where none is READY, one that is on its way is taken, else one that can be loaded, and only then one that FAILED', () => {
    const order = ['LOADING', 'UNLOADED', 'DRAINING', 'FAILED'] as const;
    fc.assert(
      fc.property(
        strategy,
        someTargets,
        fc.array(fc.constantFrom(...order), { minLength: 8, maxLength: 8 }),
        (name, modelIds, states) => {
          const models = new FakeModels(...modelIds);
          for (const [index, modelId] of modelIds.entries()) models.get(modelId).state = states[index] ?? 'FAILED';
          const { router } = routing(models, { r: toAll(modelIds, { strategy: name }) });
          const rank = (modelId: string) =>
            ({ LOADING: 0, UNLOADED: 1, DRAINING: 1, FAILED: 2, READY: -1 })[models.get(modelId).state];
          expect(rank(router.routeToModel({ model: 'r' }))).toBe(Math.min(...modelIds.map(rank)));
        },
      ),
    );
  });

  it('a target that fails is left out while others work, gets one request at a time after that, and comes back', async () => {
    await fc.assert(
      fc.asyncProperty(strategy, someTargets, fc.array(event, { maxLength: 30 }), async (name, modelIds, events) => {
        const { router, clock } = routing(new FakeModels(...modelIds), { r: toAll(modelIds, { strategy: name }) });
        const sick = modelIds[0] as string;
        for (let time = 0; time < 3; time++) await fail(router, sick);
        let dueMs = clock.ms + 1_000;
        let backOffMs = 1_000;
        for (const { waitMs, fails, inFlight } of events) {
          clock.ms += waitMs;
          const context = { metadata: { 'splitlearn-session': String(inFlight) } };
          const picked = router.routeToModel({ model: 'r' }, context);
          if (picked !== sick) {
            await succeed(router, picked);
            continue;
          }
          expect(clock.ms).toBeGreaterThanOrEqual(dueMs);
          const meanwhile: string[] = [];
          const request = router.track(sick, async () => {
            for (let time = 0; time < 10; time++) meanwhile.push(router.routeToModel({ model: 'r' }, context));
            if (fails) throw Object.assign(new Error('no'));
            return {};
          });
          await request.catch(() => {});
          expect(meanwhile).not.toContain(sick);
          if (!fails) return;
          backOffMs = Math.min(30_000, backOffMs * 2);
          dueMs = clock.ms + backOffMs;
        }
        clock.ms = dueMs;
        await succeed(router, sick);
        const picks = Array.from({ length: 200 }, (_, index) => {
          return router.routeToModel({ model: 'r' }, { metadata: { 'splitlearn-session': String(index) } });
        });
        expect(picks).toContain(sick);
      }),
      { numRuns: 200 },
    );
  });
});
