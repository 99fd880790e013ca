// Replicas with a queue each, in virtual time: how long requests take under each strategy.
import type { ComputeTiming } from '@splitlearn/comm';
import { describe, expect, it } from 'vitest';
import { FakeModels, randomNumbers, routing } from '../../test/support/routing.js';
import type { RouteStrategy } from './route-config.js';

const REQUESTS = 20_000;
const SEEDS = [1, 2, 3];

interface Work {
  /** How fast each replica is. */
  readonly speeds: readonly number[];
  /** How long a request takes at speed 1, in milliseconds. */
  readonly sizeMs: (random: () => number) => number;
  readonly meanSizeMs: number;
  /** How much of what all replicas can do is asked for. */
  readonly utilization: number;
}

interface Answer {
  readonly timing: ComputeTiming;
}

interface Job {
  readonly arrivedMs: number;
  readonly computeMs: number;
  readonly done: (answer: Answer) => void;
}

/** The time within which 99 of 100 requests are answered, in milliseconds. */
async function p99Ms(strategy: RouteStrategy, { speeds, sizeMs, meanSizeMs, utilization }: Work, seed: number) {
  const models = new FakeModels(...speeds.map((_, index) => `replica${index}`));
  const random = randomNumbers(seed);
  const targets = models.modelIds().map((model) => ({ model }));
  const { router, clock } = routing(models, { r: { strategy, targets } }, { random: randomNumbers(seed + 1_000) });
  const queues = new Map<string, Job[]>(models.modelIds().map((modelId) => [modelId, []]));
  const endsMs = new Map<string, number>();
  const betweenMs = meanSizeMs / (utilization * speeds.reduce((sum, speed) => sum + speed, 0));
  const tookMs: number[] = [];
  let arrivals = 0;
  let nextArrivalMs = 0;

  const begin = (modelId: string) => {
    const [job] = queues.get(modelId) as Job[];
    if (job) endsMs.set(modelId, clock.ms + job.computeMs);
    else endsMs.delete(modelId);
  };

  while (tookMs.length < REQUESTS) {
    let next: string | undefined;
    let nextMs = arrivals < REQUESTS ? nextArrivalMs : Number.POSITIVE_INFINITY;
    for (const [modelId, endMs] of endsMs) if (endMs <= nextMs) [next, nextMs] = [modelId, endMs];
    clock.ms = nextMs;
    if (next === undefined) {
      const modelId = router.routeToModel({ model: 'r' });
      const computeMs = sizeMs(random) / (speeds[Number(modelId.slice(7))] as number);
      const arrivedMs = clock.ms;
      void router.track(
        modelId,
        () => new Promise<Answer>((done) => queues.get(modelId)?.push({ arrivedMs, computeMs, done })),
      );
      models.get(modelId).inFlight++;
      if (models.get(modelId).inFlight === 1) begin(modelId);
      arrivals++;
      nextArrivalMs += -Math.log(1 - random()) * betweenMs;
    } else {
      const { arrivedMs, computeMs, done } = (queues.get(next) as Job[]).shift() as Job;
      tookMs.push(clock.ms - arrivedMs);
      models.get(next).inFlight--;
      begin(next);
      done({ timing: { queueMs: clock.ms - arrivedMs - computeMs, computeMs } });
      for (let tick = 0; tick < 4; tick++) await undefined;
    }
  }
  tookMs.sort((one, other) => one - other);
  return tookMs[Math.floor(REQUESTS * 0.99)] as number;
}

/** One request in twenty takes thirty times as long as the others. */
const skewedRequests: Work = {
  speeds: [1, 1, 1, 1],
  sizeMs: (random) => (random() < 0.05 ? 60 : 2),
  meanSizeMs: 0.05 * 60 + 0.95 * 2,
  utilization: 0.6,
};

/** One replica has half the speed of the others, and one in eight requests takes eight times as long. */
const skewedReplicas: Work = {
  speeds: [1, 1, 1, 0.5],
  sizeMs: (random) => (random() < 0.125 ? 16 : 2),
  meanSizeMs: 0.125 * 16 + 0.875 * 2,
  utilization: 0.55,
};

describe.each([
  ['requests that differ', skewedRequests],
  ['replicas that differ', skewedReplicas],
])('with %s', (_, work) => {
  it.each(SEEDS)(
    'least-loaded beats round robin by at least 1.3 times in p99, and random is better than it, too (seed %i)',
    async (seed) => {
      const [inTurn, leastLoaded, random] = [
        await p99Ms('round-robin', work, seed),
        await p99Ms('least-loaded', work, seed),
        await p99Ms('random', work, seed),
      ];
      expect(inTurn / leastLoaded).toBeGreaterThan(1.3);
      expect(inTurn / random).toBeGreaterThan(1.1);
    },
  );
});
