import type { CallContext } from '@splitlearn/comm';
import { hashOf, mix } from './hash.js';
import type { RouteStrategy } from './route-config.js';
import type { Target } from './route-target.js';

export type RouteContext = Pick<CallContext, 'metadata'>;

/** Picks one of two targets or more. */
export type Strategy = (candidates: readonly Target[], context: RouteContext | undefined) => Target;

export interface StrategyOptions {
  /** From 0 up to 1, without 1. */
  readonly random: () => number;
  /** What part of its device's memory is free, from 0 to 1. */
  readonly headroom: (target: Target) => number;
  readonly stickyKey: string;
}

/** What a client calls itself, and what requests are kept together by unless a route says otherwise. */
const CLIENT_KEY = 'splitlearn-client';
export const SESSION_KEY = 'splitlearn-session';

export const strategies: Readonly<Record<RouteStrategy, (options: StrategyOptions) => Strategy>> = {
  'round-robin': () => longestAgo,
  'least-loaded': () => leastLoaded,
  'resource-aware':
    ({ headroom }) =>
    (candidates) =>
      best(candidates, (target) => -headroom(target) / (target.inFlight + 1)),
  random:
    ({ random }) =>
    (candidates) => {
      const one = Math.floor(random() * candidates.length);
      const step = 1 + Math.floor(random() * (candidates.length - 1));
      return leastLoaded([candidates[one] as Target, candidates[(one + step) % candidates.length] as Target]);
    },
  weighted: () => smoothWeighted,
  sticky:
    ({ stickyKey }) =>
    (candidates, context) => {
      const key = context?.metadata[stickyKey] || context?.metadata[CLIENT_KEY];
      return key ? rendezvous(candidates, key) : leastLoaded(candidates);
    },
};

/** The one that was not picked for the longest: where all take part, each in turn. */
function longestAgo(candidates: readonly Target[]): Target {
  return best(candidates, () => 0);
}

/** The one that is expected to answer first. */
function leastLoaded(candidates: readonly Target[]): Target {
  const usualMs = usualServiceMs(candidates);
  return best(candidates, ({ inFlight, instances, serviceMs = usualMs }) => {
    return Math.max(1, (inFlight + 1) / instances) * serviceMs;
  });
}

/** For a target that nothing is known of: what the others take. */
function usualServiceMs(candidates: readonly Target[]): number {
  let sum = 0;
  let known = 0;
  for (const { serviceMs } of candidates) {
    if (serviceMs === undefined) continue;
    sum += serviceMs;
    known++;
  }
  return known === 0 ? 1 : sum / known;
}

/** Nginx's smooth weighted round robin: exact over every round, and no target gets its requests all at once. */
function smoothWeighted(candidates: readonly Target[]): Target {
  let total = 0;
  for (const target of candidates) {
    target.credit += target.weight;
    total += target.weight;
  }
  const chosen = best(candidates, ({ credit }) => -credit);
  chosen.credit -= total;
  return chosen;
}

/**
 * Every target draws a lot for the key, and the highest wins: when a target comes or goes, only the keys that it wins or
 * had won move. The lots are the same on every server.
 */
function rendezvous(candidates: readonly Target[], key: string): Target {
  const hash = hashOf(key);
  let chosen = candidates[0] as Target;
  let highest = -1;
  for (const target of candidates) {
    const lot = mix(hash ^ target.seed);
    if (lot <= highest) continue;
    highest = lot;
    chosen = target;
  }
  return chosen;
}

/** The one with the least cost; of equals the one that was not picked for the longest. */
function best(candidates: readonly Target[], costOf: (target: Target) => number): Target {
  let chosen = candidates[0] as Target;
  let least = costOf(chosen);
  for (let index = 1; index < candidates.length; index++) {
    const target = candidates[index] as Target;
    const cost = costOf(target);
    if (cost > least || (cost === least && target.turn >= chosen.turn)) continue;
    chosen = target;
    least = cost;
  }
  return chosen;
}
