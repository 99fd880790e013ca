// Models without hosts, for the unit tests of src/routing.
import { CommError } from '@splitlearn/comm';
import { expect } from 'vitest';
import { ManagerError } from '../../src/errors.js';
import type { ModelState } from '../../src/models/model-state.js';
import type { ModelLoad } from '../../src/models/registered-model.js';
import { ModelRouter, type ModelRouterOptions, type RoutableModels } from '../../src/routing/model-router.js';

export const MODEL_STATES: readonly ModelState[] = ['LOADING', 'READY', 'DRAINING', 'UNLOADED', 'FAILED'];

export type FakeLoad = { -readonly [Name in keyof ModelLoad]: ModelLoad[Name] };

/** Models that are as a test says. */
export class FakeModels implements RoutableModels {
  readonly loads = new Map<string, FakeLoad>();
  /** What `acquire` has lent out and not got back. */
  readonly lent: string[] = [];
  /** What `acquire` waits for. Default: nothing; the model is READY then. */
  load: (modelId: string, signal: AbortSignal | undefined) => Promise<void> = async () => {};

  constructor(...modelIds: string[]) {
    for (const modelId of modelIds) this.add(modelId);
  }

  add(modelId: string, load: Partial<FakeLoad> = {}): FakeLoad {
    const added: FakeLoad = {
      ...{ state: 'READY', leaving: false, inFlight: 0, instances: 1, memoryBytes: 0, fileBytes: 1 },
      ...{ memoryLimitBytes: undefined, reservationId: modelId },
      ...load,
    };
    this.loads.set(modelId, added);
    return added;
  }

  get(modelId: string): FakeLoad {
    return this.loads.get(modelId) ?? expect.fail(`there is no model '${modelId}'`);
  }

  modelIds(): readonly string[] {
    return [...this.loads.keys()];
  }

  getModelLoad(modelId: string): ModelLoad | undefined {
    return this.loads.get(modelId);
  }

  async acquire(modelId: string, context?: { readonly signal: AbortSignal }): Promise<{ release(): void }> {
    await this.load(modelId, context?.signal);
    const load = this.loads.get(modelId);
    if (!load) throw new ManagerError('MODEL_NOT_FOUND', `there is no model '${modelId}' here`);
    load.state = 'READY';
    this.lent.push(modelId);
    return { release: () => this.lent.splice(this.lent.indexOf(modelId), 1) };
  }
}

/** A router over models of a test, and its clock. */
export function routing(
  models: FakeModels,
  routes: NonNullable<ModelRouterOptions['routes']>,
  options: Partial<ModelRouterOptions> = {},
) {
  const clock = { ms: 0 };
  const router = new ModelRouter({ modelManager: models, routes, now: () => clock.ms, ...options });
  return { router, clock, models };
}

/** Some random numbers, the same ones every time. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** How often each target was picked. */
export function countPicks(router: ModelRouter, name: string, picks: number): Map<string, number> {
  const counts = new Map<string, number>();
  for (let pick = 0; pick < picks; pick++) {
    const model = router.routeToModel({ model: name });
    counts.set(model, (counts.get(model) ?? 0) + 1);
  }
  return counts;
}

export const gone = new CommError('UNAVAILABLE', 'the server went away');

/** A request to a model that fails. */
export async function fail(router: ModelRouter, modelId: string, error: Error = gone): Promise<void> {
  await expect(router.track(modelId, () => Promise.reject(error))).rejects.toBe(error);
}

/** A request to a model that succeeds. */
export async function succeed(router: ModelRouter, modelId: string): Promise<void> {
  await router.track(modelId, async () => ({}));
}

/** What a router throws. */
export function refusal(work: () => unknown): ManagerError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(ManagerError);
    return error as ManagerError;
  }
  return expect.fail('nothing was thrown');
}
