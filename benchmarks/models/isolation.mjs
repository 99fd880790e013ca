// What it costs that a model runs in a process of its own instead of a thread of the server's.
import { compare, echoTable, measureEchoes, WORKS } from './echoes.mjs';
import { atLeast, atMost } from './report.mjs';

const MORE_MS = { '3 KB, 1 in flight': 0.15, '393 KB, 1 in flight': 1 };
const BUSY = '3 KB, 32 in flight';

export async function measure(settings) {
  const both = ['process', 'thread'];
  const results = await measureEchoes({ ...settings, variants: both, works: Object.keys(WORKS) });
  const difference = (one, other) => one - other;
  const ratio = (one, other) => one / other;
  return {
    tables: [echoTable('A tensor to a model that gives it back: the model in a process, or in a thread', results)],
    targets: [
      ...Object.entries(MORE_MS).map(([work, ms]) =>
        atMost(`${work}: p50 in a process − in a thread, ms`, ms, compare(results, work, both, 'p50', difference)),
      ),
      atLeast(`${BUSY}: requests/s, process / thread`, 0.7, compare(results, BUSY, both, 'perSecond', ratio)),
    ],
    figures: results,
  };
}
