import { setImmediate } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

/** What a process holds when all that it does not need has been collected, in MiB. */
export async function memory() {
  // What is finalized by one collection is freed by the next.
  for (let times = 0; times < 3; times++) {
    collectGarbage();
    await setImmediate();
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return { heap: mebibytes(heapUsed), external: mebibytes(external), rss: mebibytes(rss) };
}

function mebibytes(bytes) {
  return Math.round((bytes / 2 ** 20) * 10) / 10;
}
