// How many loads a sequence of requests needs where there is room for so many models; `present`: those loaded before,
// the one that was used longest ago first.

/** By one that evicts what was used longest ago. */
export function lruLoads(models, room, present = []) {
  const evictOldest = (loaded) => loaded[0];
  return countLoads(models, room, present, evictOldest);
}

/** By one that knows what comes, and evicts what is needed last: no one can do with less. */
export function fewestLoads(models, room, present = []) {
  const evictNeededLast = (loaded, from) => {
    const next = (model) => {
      const index = models.indexOf(model, from);
      return index === -1 ? Number.POSITIVE_INFINITY : index;
    };
    return loaded.toSorted((one, other) => next(other) - next(one) || 0)[0];
  };
  return countLoads(models, room, present, evictNeededLast);
}

function countLoads(models, room, present, choose) {
  let loaded = [...present];
  let loads = 0;
  for (const [index, model] of models.entries()) {
    if (!loaded.includes(model)) {
      loads++;
      if (loaded.length >= room) {
        const evicted = choose(loaded, index);
        loaded = loaded.filter((other) => other !== evicted);
      }
    }
    loaded = [...loaded.filter((other) => other !== model), model];
  }
  return loads;
}
