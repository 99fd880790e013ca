// A tensor to the identity model and back, client and server in processes of their own, as in rpc.mjs.
import { startPair } from '../rpc/processes.mjs';
import { median, percentile } from '../support.mjs';
import { writeIdentity } from './onnx-files.mjs';
import { short } from './report.mjs';

const VARIANTS = {
  process: { server: '../models/peers/managed', options: { isolation: 'process' } },
  thread: { server: '../models/peers/managed', options: { isolation: 'thread' } },
  'without manager': { server: '../models/peers/comm', options: {} },
};
const WARM_UP = [
  { bytes: 3_072, inFlight: 32, calls: 5_000 },
  { bytes: 3_072, inFlight: 1, calls: 1_000 },
  { bytes: 393_216, inFlight: 4, calls: 200 },
];
const LEAD_IN_MS = 100; // processes that were idle begin slowly

export const WORKS = {
  '3 KB, 1 in flight': { bytes: 3_072, inFlight: 1, ms: 800 },
  '393 KB, 1 in flight': { bytes: 393_216, inFlight: 1, ms: 800 },
  '3 KB, 32 in flight': { bytes: 3_072, inFlight: 32, ms: 800 },
};

/**
 * Measures variants in turns, so that each sees the machine as the others do.
 *
 * @returns by work, then variant, the figures of each round.
 */
export async function measureEchoes({ variants, works, folder, rounds, quick, say }) {
  const file = writeIdentity(folder);
  const results = Object.fromEntries(
    works.map((work) => [work, Object.fromEntries(variants.map((name) => [name, []]))]),
  );
  const pairs = {};
  try {
    for (const name of variants) {
      const { server, options } = VARIANTS[name];
      pairs[name] = await startPair({ server, options: { ...options, file } }, { listen: '127.0.0.1:0' });
      for (const load of WARM_UP) await pairs[name].drive(load);
    }
    for (let round = 0; round < rounds; round++) {
      say(`round ${round + 1}`);
      for (const work of works) {
        for (const name of round % 2 === 0 ? variants : variants.toReversed()) {
          const load = WORKS[work];
          await pairs[name].drive({ ...load, ms: LEAD_IN_MS });
          results[work][name].push(figures(await pairs[name].drive(quick ? { ...load, ms: load.ms / 4 } : load)));
        }
      }
    }
  } finally {
    await Promise.all(Object.values(pairs).map((pair) => pair.stop()));
  }
  return results;
}

function figures({ ms, latencies }) {
  return {
    p50: percentile(latencies, 50) / 1_000,
    p99: percentile(latencies, 99) / 1_000,
    perSecond: (latencies.length / ms) * 1_000,
  };
}

/** The median, over the rounds, of what two variants' figures of the same round give. */
export function compare(results, work, [one, other], figure, combine) {
  const others = results[work][other];
  return median(results[work][one].map((entry, round) => combine(entry[figure], others[round][figure])));
}

/** A table with the medians of all figures. */
export function echoTable(title, results) {
  const middle = (rounds, figure) => short(median(rounds.map((entry) => entry[figure])));
  const rows = Object.entries(results).flatMap(([work, variants]) =>
    Object.entries(variants).map(([variant, rounds]) => [
      work,
      variant,
      ...['p50', 'p99', 'perSecond'].map((figure) => middle(rounds, figure)),
    ]),
  );
  return { title, head: ['work', 'variant', 'p50 ms', 'p99 ms', 'requests/s'], rows };
}
