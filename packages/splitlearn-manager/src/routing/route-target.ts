import type { ModelState } from '../models/model-state.js';
import type { ModelLoad } from '../models/registered-model.js';
import { hashOf } from './hash.js';
import { ServiceTime } from './service-time.js';
import { type EjectionOptions, TargetHealth } from './target-health.js';

/** A target as the strategies see it: as it is while they choose. */
export interface RouteTarget {
  /** The id of its model. */
  readonly model: string;
  /** Its share of the requests, relative to the others'. */
  readonly weight: number;
  readonly state: ModelState;
  /** Requests and sessions that use it or wait for it, through whatever route. */
  readonly inFlight: number;
  /** How many requests it computes at a time. */
  readonly instances: number;
  /** How long it takes for one request, in milliseconds: a mean of the recent ones; `undefined` where nothing is known. */
  readonly serviceMs: number | undefined;
}

/** What is learned of a model from its requests, through whatever route they come. */
export class TargetRecord {
  readonly health: TargetHealth;
  readonly serviceTime = new ServiceTime();

  constructor(ejection?: EjectionOptions) {
    this.health = new TargetHealth(ejection);
  }
}

/**
 * How good a target is for a request: the lower the better. Those of the best rank that there are take part in the choice.
 *
 * 0 answers now; 1 is on its way up; 2 is loaded by the request. 3 to 5: the same, but it is left out because it fails.
 */
type Rank = number;
/** It could not be loaded the last time, or crashes again and again. */
const FAILED: Rank = 6;
/** It is being unloaded for good, and refuses requests. */
const LEAVING: Rank = 7;
/** It takes no part: there is no such model, or its weight is 0. */
export const ABSENT: Rank = 8;
/** To be added for a target that is left out. */
const LEFT_OUT: Rank = 3;

const RANKS: Readonly<Record<ModelState, Rank>> = { READY: 0, LOADING: 1, UNLOADED: 2, DRAINING: 2, FAILED };

/** Whether targets of a rank are left out, and take part only because there are no others. */
export function isLeftOut(rank: Rank): boolean {
  return rank >= LEFT_OUT && rank < FAILED;
}

/** A model as the target of one route. */
export class Target implements RouteTarget {
  readonly model: string;
  readonly weight: number;
  readonly record: TargetRecord;
  /** What it draws its lots with, for keys that are to stay with their target. */
  readonly seed: number;
  /** Which of the route's requests was the last that went to it. */
  turn = 0;
  /** What it is owed, of smooth weighted round robin. */
  credit = 0;
  rank: Rank = ABSENT;
  state: ModelState = 'UNLOADED';
  inFlight = 0;
  instances = 1;
  serviceMs: number | undefined;

  constructor(model: string, weight: number, record: TargetRecord) {
    this.model = model;
    this.weight = weight;
    this.record = record;
    this.seed = hashOf(model);
  }

  /** Looks at its model anew. */
  look(load: ModelLoad | undefined, nowMs: number): Rank {
    this.rank = this.#look(load, nowMs);
    return this.rank;
  }

  #look(load: ModelLoad | undefined, nowMs: number): Rank {
    if (!load || this.weight === 0) return ABSENT;
    const { state, inFlight, instances } = load;
    this.state = state;
    this.inFlight = inFlight;
    this.instances = instances;
    this.serviceMs = this.record.serviceTime.read(nowMs, inFlight === 0);
    if (load.leaving) return LEAVING;
    const rank = RANKS[state];
    return rank < LEFT_OUT && !this.record.health.isIn(nowMs) ? rank + LEFT_OUT : rank;
  }
}
