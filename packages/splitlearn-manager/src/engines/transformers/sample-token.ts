import type { GenerationOptions } from './generation-options.js';

/**
 * Draws the next token: divides the scores by the temperature, keeps the `topK` most likely tokens, then the fewest
 * most likely of those whose probabilities add up to `topP`, and draws one of what is left by its probability. Tokens
 * exactly as likely as the last one that is kept are kept as well.
 *
 * @param logits - One score a token of the vocabulary, unnormalized. Not changed.
 * @param options - A `temperature` above 0.
 * @param random - Gives uniform numbers in [0, 1); called once.
 * @returns The token's id.
 */
export function sampleToken(
  logits: Float32Array,
  { temperature, topK, topP }: Pick<GenerationOptions, 'temperature' | 'topK' | 'topP'>,
  random: () => number,
): number {
  const highest = logits.reduce((left, right) => Math.max(left, right));
  // The highest score weighs 1 whatever the temperature: the quotient is no number where the score is infinite.
  const weights = new Float64Array(logits).map((logit) =>
    logit === highest ? 1 : Math.exp((logit - highest) / temperature),
  );
  if (topK > 0) dropLighter(weights, heaviest(weights, topK));
  if (topP < 1) dropLighter(weights, lightestOfNucleus(weights, topP));

  let rest = random() * sum(weights);
  const token = weights.findIndex((weight) => {
    rest -= weight;
    return rest < 0;
  });
  // Rounding may leave a rest behind the last one.
  return token === -1 ? weights.findLastIndex((weight) => weight > 0) : token;
}

/** The weight of the `count`-th heaviest; 0 where there are not as many. */
function heaviest(weights: Float64Array, count: number): number {
  // That of some is no heavier than that of all, and leaves only few to sort.
  const bound =
    weights
      .slice(0, 32 * count)
      .sort()
      .at(-count) ?? 0;
  return (
    weights
      .filter((weight) => weight >= bound)
      .sort()
      .at(-count) ?? 0
  );
}

/** The weight of the lightest of the fewest that weigh `share` of all together. */
function lightestOfNucleus(weights: Float64Array, share: number): number {
  const total = sum(weights);
  // All that are lighter than this weigh less than 1 - share together, so that only the few others need sorting.
  const bound = ((1 - share) * total) / weights.length;
  let missing = share * total;
  const lightest = weights
    .filter((weight) => weight >= bound)
    .sort()
    .findLast((weight) => {
      missing -= weight;
      return missing <= 0;
    });
  // Rounding may leave some missing behind the last one.
  return lightest ?? 0;
}

function dropLighter(weights: Float64Array, lightest: number): void {
  weights.forEach((weight, token) => {
    if (weight < lightest) weights[token] = 0;
  });
}

function sum(weights: Float64Array): number {
  return weights.reduce((total, weight) => total + weight);
}
