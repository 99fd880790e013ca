// What the manager costs over comm's own server with the same model in the same kind of thread.
import { compare, echoTable, measureEchoes } from './echoes.mjs';
import { atMost } from './report.mjs';

const SMALL = '3 KB, 1 in flight';

export async function measure(settings) {
  const both = ['thread', 'without manager'];
  const results = await measureEchoes({ ...settings, variants: both, works: [SMALL, '3 KB, 32 in flight'] });
  const ratio = compare(results, SMALL, both, 'p50', (one, other) => one / other);
  return {
    tables: [echoTable("A tensor to a model that gives it back: ManagedServer, or comm's server alone", results)],
    targets: [atMost(`${SMALL}: p50, ManagedServer (thread) / comm alone`, 1.25, ratio)],
    figures: results,
  };
}
