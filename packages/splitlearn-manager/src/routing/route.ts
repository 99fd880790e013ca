import { isDeepStrictEqual } from 'node:util';
import type { ComputeRequest } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { ModelState } from '../models/model-state.js';
import type { ModelLoad } from '../models/registered-model.js';
import { parseRouteConfig, type RouteConfig, type RouteStrategy } from './route-config.js';
import { ABSENT, isLeftOut, type RouteTarget, Target, type TargetRecord } from './route-target.js';
import { type RouteContext, SESSION_KEY, type Strategy, type StrategyOptions, strategies } from './strategies.js';

/**
 * A strategy of one's own: picks one of two targets or more. It is called for every request, and must be quick; what it
 * throws is what the request fails with. The targets are as they are during the call, and not to be kept.
 */
export type RouteFunction = (
  targets: readonly RouteTarget[],
  request: Partial<ComputeRequest>,
  context: RouteContext | undefined,
) => RouteTarget;

/** A {@link RouteConfig} whose strategy may be a function as well. Such a route may have weights, for the function to read. */
export interface Route extends Readonly<Omit<RouteConfig, 'strategy' | 'targets'>> {
  readonly strategy?: RouteStrategy | RouteFunction | undefined;
  readonly targets: readonly Readonly<RouteConfig['targets'][number]>[];
}

/** A route as it is now. */
export interface RouteInfo {
  readonly name: string;
  /** `custom`: a function. */
  readonly strategy: RouteStrategy | 'custom';
  /** The metadata that keeps requests together; present where the strategy is `sticky`. */
  readonly stickyKey?: string;
  readonly targets: readonly RouteTargetInfo[];
}

export interface RouteTargetInfo {
  readonly model: string;
  /** Its share of the requests, relative to the others'. */
  readonly weight: number;
  /** Absent where there is no such model any more. */
  readonly state?: ModelState;
  /** Requests and sessions that use it or wait for it, through whatever route. */
  readonly inFlight: number;
  /** How long it is left out because it fails, in milliseconds; 0 while it is well. */
  readonly leftOutMs: number;
}

/** What a route needs of the router that has it. */
export interface RouteSurroundings extends Omit<StrategyOptions, 'stickyKey'> {
  readonly loadOf: (modelId: string) => ModelLoad | undefined;
  readonly recordOf: (modelId: string) => TargetRecord;
  readonly now: () => number;
}

/**
 * Checks a route by itself.
 *
 * @throws ManagerError `INVALID_CONFIG`, naming the route and the field.
 */
export function checkRoute(name: string, { strategy, ...route }: Route): Route {
  // So that it may have weights.
  if (typeof strategy === 'function')
    return { ...parseRouteConfig(name, { ...route, strategy: 'weighted' }), strategy };
  return parseRouteConfig(name, { ...route, ...(strategy !== undefined && { strategy }) });
}

/** A name and the models that it stands for: picks one of them for each request. */
export class ActiveRoute {
  readonly name: string;
  readonly targets: readonly Target[];
  readonly #definition: Route;
  readonly #strategyName: RouteStrategy | 'custom';
  readonly #strategy: Strategy | undefined;
  readonly #function: RouteFunction | undefined;
  readonly #surroundings: RouteSurroundings;
  #turns = 0;

  constructor(name: string, definition: Route, surroundings: RouteSurroundings) {
    const { strategy = defaultStrategy(definition), targets, stickyKey = SESSION_KEY } = definition;
    this.name = name;
    this.#definition = definition;
    this.#surroundings = surroundings;
    this.targets = targets.map(({ model, weight = 1 }) => new Target(model, weight, surroundings.recordOf(model)));
    if (typeof strategy === 'function') {
      this.#strategyName = 'custom';
      this.#function = strategy;
    } else {
      this.#strategyName = strategy;
      this.#strategy = strategies[strategy]({ ...surroundings, stickyKey });
    }
  }

  isDefinedAs(definition: Route): boolean {
    return isDeepStrictEqual(this.#definition, definition);
  }

  /**
   * The model that a request goes to.
   *
   * @throws ManagerError `MODEL_NOT_FOUND` when none of its models is there any more; `INVALID_CONFIG` when the user's
   * function picks what is not to be picked.
   */
  pick(request: Partial<ComputeRequest>, context: RouteContext | undefined): string {
    const candidates = this.#candidates();
    const chosen = candidates.length === 1 ? (candidates[0] as Target) : this.#choose(candidates, request, context);
    chosen.turn = ++this.#turns;
    return chosen.model;
  }

  describe(): RouteInfo {
    const strategy = this.#strategyName;
    const targets = this.targets.map(({ model, weight, record }): RouteTargetInfo => {
      const load = this.#surroundings.loadOf(model);
      const leftOutMs = record.health.backOffMs;
      return { model, weight, ...(load && { state: load.state }), inFlight: load?.inFlight ?? 0, leftOutMs };
    });
    const { stickyKey = SESSION_KEY } = this.#definition;
    return { name: this.name, strategy, ...(strategy === 'sticky' && { stickyKey }), targets };
  }

  /** The targets of the best rank that there are. */
  #candidates(): readonly Target[] {
    const nowMs = this.#surroundings.now();
    let best = ABSENT;
    let count = 0;
    for (const target of this.targets) {
      const rank = target.look(this.#surroundings.loadOf(target.model), nowMs);
      if (rank < best) {
        best = rank;
        count = 0;
      }
      if (rank === best) count++;
    }
    if (best === ABSENT) throw this.#gone();
    const candidates = count === this.targets.length ? this.targets : this.targets.filter(({ rank }) => rank === best);
    return isLeftOut(best) ? leastBad(candidates) : candidates;
  }

  #choose(candidates: readonly Target[], request: Partial<ComputeRequest>, context: RouteContext | undefined): Target {
    if (this.#strategy) return this.#strategy(candidates, context);
    const chosen = this.#function?.(candidates, request, context);
    const target = candidates.find((candidate) => candidate === chosen);
    if (target) return target;
    throw new ManagerError(
      'INVALID_CONFIG',
      `the function of route '${this.name}' picked ${chosen ? `'${chosen.model}'` : 'nothing'}; it has to return one of ` +
        `the targets that it is given: ${names(candidates)}`,
    );
  }

  #gone(): ManagerError {
    const some = this.targets.filter(({ weight }) => weight > 0);
    const message = `none of the models of route '${this.name}' is here any more: ${names(some)}; load one, or set the route anew`;
    return new ManagerError('MODEL_NOT_FOUND', message);
  }
}

/** Of those that all are left out: those that have not failed for as long as others. */
function leastBad(candidates: readonly Target[]): readonly Target[] {
  const least = Math.min(...candidates.map(({ record }) => record.health.backOffMs));
  return candidates.filter(({ record }) => record.health.backOffMs === least);
}

function defaultStrategy({ targets }: Route): RouteStrategy {
  return targets.some(({ weight }) => weight !== undefined) ? 'weighted' : 'least-loaded';
}

function names(targets: readonly Target[]): string {
  return targets.map(({ model }) => `'${model}'`).join(', ');
}
