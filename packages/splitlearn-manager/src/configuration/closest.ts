/** The known name that a misspelt one most likely means, where there is one that is near enough. */
export function closest(name: string, known: Iterable<string>): string | undefined {
  const wanted = plain(name);
  const limit = Math.max(1, Math.floor(wanted.length / 3));
  let best: string | undefined;
  let bestDistance = limit + 1;
  for (const candidate of known) {
    const distance = editDistance(wanted, plain(candidate));
    if (distance >= bestDistance) continue;
    best = candidate;
    bestDistance = distance;
  }
  return best;
}

/** `max_models`, `max-models` and `MaxModels` are `maxModels` to whoever writes them. */
function plain(name: string): string {
  return name.slice(0, 100).replace(/[-_]/g, '').toLowerCase();
}

/** How many letters have to be added, left out or replaced, two that changed places counting once (optimal string alignment). */
function editDistance(one: string, other: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i++) {
    const row = [i];
    for (let j = 1; j <= other.length; j++) {
      const same = one[i - 1] === other[j - 1];
      const swapped = one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1];
      const cost = Math.min(at(last, j - 1) + (same ? 0 : 1), at(last, j) + 1, at(row, j - 1) + 1);
      row.push(swapped ? Math.min(cost, at(beforeLast, j - 2) + 1) : cost);
    }
    beforeLast = last;
    last = row;
  }
  return at(last, other.length);
}

function at(row: readonly number[], index: number): number {
  return row[index] ?? Number.POSITIVE_INFINITY;
}
