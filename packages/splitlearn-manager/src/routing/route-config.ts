import { z } from 'zod';
import { parseConfig } from '../config.js';
import { ManagerError } from '../errors.js';

/**
 * How one of a route's targets is picked for a request.
 *
 * - `round-robin`: each in turn.
 * - `least-loaded`: the one that is expected to answer first, by its requests in flight and how long it takes for one.
 * - `resource-aware`: the one with the most memory left on its device for each of its requests.
 * - `random`: two at random, and of these the one that is expected to answer first ("the power of two choices",
 *   Mitzenmacher 2001).
 * - `weighted`: each as often as its weight says, evenly spread (nginx's smooth weighted round robin).
 * - `sticky`: requests with the same key go to the same target (rendezvous hashing, Thaler and Ravishankar 1998).
 */
export const RouteStrategy = z.enum(['round-robin', 'least-loaded', 'resource-aware', 'random', 'weighted', 'sticky']);

/** One of the models that a route stands for. */
const RouteTargetConfig = z.strictObject({
  /** The id of a model. One on another machine is a model with an `address`. */
  model: z.string().min(1).max(200),
  /** Its share of the requests, relative to the others'; 0 for none. For `weighted` only. Default 1. */
  weight: z.number().min(0).max(1_000_000).optional(),
});

/**
 * A name for models that can stand in for each other: replicas, versions, the same model on several machines. With a
 * single target it is an alias.
 */
export const RouteConfig = z
  .strictObject({
    /** How a target is picked. Default: `weighted` where a target has a weight, else `least-loaded`. */
    strategy: RouteStrategy.optional(),
    /** The models, 1 to 256. */
    targets: z.array(RouteTargetConfig).min(1).max(256),
    /**
     * The metadata (HTTP/2 header, in lower case) whose value keeps requests together. For `sticky` only. Requests
     * without it are kept together by `splitlearn-client`; those without either go where `least-loaded` sends them.
     * Default `splitlearn-session`.
     */
    stickyKey: z
      .string()
      .regex(/^[0-9a-z_.-]{1,100}$/, 'must be the name of a header, in lower case')
      .optional(),
  })
  .superRefine(({ strategy, targets, stickyKey }, check) => {
    const refuse = (path: (string | number)[], message: string) => check.addIssue({ code: 'custom', path, message });
    for (const [index, { model, weight }] of targets.entries()) {
      const first = targets.findIndex((other) => other.model === model);
      if (first < index)
        refuse(
          ['targets', index, 'model'],
          `names '${model}', which is among the targets already; give that a weight instead`,
        );
      if (weight !== undefined && strategy !== undefined && strategy !== 'weighted') {
        refuse(['targets', index, 'weight'], `has no effect with '${strategy}'; use 'weighted', or leave it out`);
      }
    }
    if (targets.length > 0 && targets.every(({ weight }) => weight === 0)) {
      refuse(['targets'], 'have only weights of 0, so that no request could go anywhere');
    }
    if (stickyKey !== undefined && strategy !== 'sticky') refuse(['stickyKey'], `needs the strategy 'sticky'`);
  });

/** Routes by their names. */
export const RoutesConfig = z.record(z.string().min(1).max(200), RouteConfig);

export type RouteStrategy = z.infer<typeof RouteStrategy>;

/** A route as it is written: whatever has a default may be left out. */
export type RouteConfig = z.input<typeof RouteConfig>;

/** Routes by their names, as they are written. */
export type RoutesConfig = z.input<typeof RoutesConfig>;

/**
 * Checks a route.
 *
 * @throws ManagerError `INVALID_CONFIG`, naming the route and the field.
 */
export function parseRouteConfig(name: string, config: unknown): RouteConfig {
  if (name.length === 0 || name.length > 200) {
    throw new ManagerError('INVALID_CONFIG', `the name of a route has 1 to 200 characters, and not ${name.length}`);
  }
  return parseConfig(RouteConfig, config, `route '${name}'`);
}
