/** A loaded model that may have to make room for another. */
export interface EvictionCandidate {
  readonly modelId: string;
  /** What its end gives back, in bytes. */
  readonly memoryBytes: number;
  /** Milliseconds since it was last asked for. */
  readonly idleMs: number;
  /** Whether requests use it, or wait for it. It is evicted only after those that use it have ended. */
  readonly busy: boolean;
}

/** How much room is missing. */
export interface Shortage {
  readonly bytes: number;
  /** How many models there are too many. */
  readonly models: number;
}

/**
 * Puts candidates into the order in which they are to go; those that are left out stay. Called with all that may go, so
 * pinned models are never among them. It must not have side effects: plans ask it as well.
 */
export type EvictionPolicy = (candidates: readonly EvictionCandidate[], shortage: Shortage) => EvictionCandidate[];

/** The default: those that nobody uses first, and of these the one that has not been asked for the longest. */
export const leastRecentlyUsed: EvictionPolicy = (candidates) =>
  [...candidates].sort((one, other) => Number(one.busy) - Number(other.busy) || other.idleMs - one.idleMs);

/**
 * The models that have to go, no more than it takes: one that the policy puts first stays when those behind it have to go
 * anyway, and are enough.
 *
 * @returns undefined when even all of them are not enough.
 */
export function chooseEvictions(
  candidates: readonly EvictionCandidate[],
  shortage: Shortage,
  policy: EvictionPolicy = leastRecentlyUsed,
): EvictionCandidate[] | undefined {
  const chosen: EvictionCandidate[] = [];
  for (const candidate of policy(candidates, shortage)) {
    if (isEnough(chosen, shortage)) break;
    chosen.push(candidate);
  }
  if (!isEnough(chosen, shortage)) return undefined;
  for (const candidate of [...chosen].reverse()) {
    const others = chosen.filter((other) => other !== candidate);
    if (isEnough(others, shortage)) chosen.splice(chosen.indexOf(candidate), 1);
  }
  return chosen;
}

function isEnough(evictions: readonly EvictionCandidate[], { bytes, models }: Shortage): boolean {
  const freedBytes = evictions.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  return freedBytes >= bytes && evictions.length >= models;
}
