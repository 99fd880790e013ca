import { ManagerError } from '../errors.js';
import type { RouteConfig } from '../routing/route-config.js';
import type { ConfiguredModel } from './model-sources.js';
import { afterStep, type ReloadPlan, type ReloadStep, type ServedConfiguration, stepToText } from './plan-reload.js';

/** What a reload changes: a server that runs. */
export interface ReloadTarget {
  /** Resolves when the model can be used. */
  loadModel(model: ConfiguredModel): Promise<unknown>;
  /** Puts a model with another configuration in the place of the one of that id; resolves when the new one answers. */
  reloadModel(modelId: string, model: ConfiguredModel): Promise<unknown>;
  /** Resolves when the requests that use the model are over, and it is gone. */
  unloadModel(modelId: string): Promise<unknown>;
  /** Sends requests for a name to other models, from now on. */
  setRoute(name: string, route: RouteConfig): unknown;
  removeRoute(name: string): unknown;
}

/** What a reload has done. */
export interface ReloadReport {
  /** What was changed, in words and in order. */
  readonly changes: readonly string[];
  /** What was changed in the file and has no effect until the program is started anew, by its fields. */
  readonly needRestart: readonly string[];
  /** What the server serves now: what the next reload is compared with. */
  readonly serves: ServedConfiguration;
}

/**
 * A reload that came to its end early: what had not been done yet, the old, is still there, and still serves. Its code is
 * that of what failed. The next reload goes on from where this one ended.
 */
export class ReloadError extends ManagerError {
  /** What was done before, in words. */
  readonly done: readonly string[];
  /** What was not done; the first of it failed. */
  readonly left: readonly string[];
  readonly serves: ServedConfiguration;

  constructor(done: readonly ReloadStep[], left: readonly ReloadStep[], serves: ServedConfiguration, cause: unknown) {
    const texts = { done: done.map(stepToText), left: left.map(stepToText) };
    const [failed, ...others] = texts.left;
    const why = cause instanceof Error ? cause.message : String(cause);
    const code = cause instanceof ManagerError ? cause.code : 'MODEL_LOAD_FAILED';
    const list = (what: string, steps: readonly string[]) => (steps.length > 0 ? `; ${what}: ${steps.join(', ')}` : '');
    super(
      code,
      `the reload could not ${failed}: ${why}${list('done before', texts.done)}${list('left out', others)}; what was there ` +
        'goes on serving; mend the configuration and reload again',
      { cause },
    );
    this.name = 'ReloadError';
    this.done = texts.done;
    this.left = texts.left;
    this.serves = serves;
  }
}

/**
 * Changes a server that runs, one step after the other: loads what is new, sends requests there, then unloads what is
 * old. For a while there are both, so there must be room for both.
 *
 * @throws ReloadError when a step fails; none after it is done.
 */
export async function applyReload(plan: ReloadPlan, target: ReloadTarget): Promise<ReloadReport> {
  const { steps, needRestart } = plan;
  let serves = plan.before;
  for (const [index, step] of steps.entries()) {
    try {
      await apply(step, target);
    } catch (error) {
      throw new ReloadError(steps.slice(0, index), steps.slice(index), serves, error);
    }
    serves = afterStep(serves, step);
  }
  return { changes: steps.map(stepToText), needRestart, serves };
}

/** Models may also have been loaded and unloaded by hand since the last reload: what is there already is not done again. */
async function apply(step: ReloadStep, target: ReloadTarget): Promise<void> {
  switch (step.type) {
    case 'load': {
      const { model } = step;
      await orElse(target.loadModel(model), 'MODEL_ALREADY_LOADED', () => target.reloadModel(model.modelId, model));
      return;
    }
    case 'reload': {
      const { model } = step;
      await orElse(target.reloadModel(model.modelId, model), 'MODEL_NOT_FOUND', () => target.loadModel(model));
      return;
    }
    case 'unload':
      await orElse(target.unloadModel(step.modelId), 'MODEL_NOT_FOUND', async () => {});
      return;
    case 'set-route':
      await target.setRoute(step.name, step.route);
      return;
    case 'remove-route':
      await orElse((async () => target.removeRoute(step.name))(), 'MODEL_NOT_FOUND', async () => {});
  }
}

async function orElse(work: Promise<unknown>, code: ManagerError['code'], otherwise: () => Promise<unknown>) {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof ManagerError) || error.code !== code) throw error;
    await otherwise();
  }
}
