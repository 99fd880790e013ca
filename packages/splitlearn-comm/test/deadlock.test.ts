import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

// Node.js before 26 does not read from a connection while it waits to write to it, so two of them can wait for each other
// for ever. test/tools/deadlock-on-node-lines.mjs runs the same on other versions of it.

const ECHOES = fileURLToPath(new URL('fixtures/echoes.mjs', import.meta.url));
const READS_WHILE_WRITING = Number.parseInt(process.versions.node, 10) >= 26;

/** Makes echoes in a process of their own: one that waits for ever can be killed. */
async function echoes(...options: readonly (string | number)[]): Promise<{ stalled: boolean; answered: number }> {
  const { stdout } = await promisify(execFile)(process.execPath, [ECHOES, ...options.map(String)], { timeout: 60_000 });
  return JSON.parse(stdout);
}

describe.each(['tcp', 'unix'])('echoes at once over %s', (where) => {
  it('are all answered', { timeout: 70_000 }, async () => {
    expect(await echoes(where, 'with-remedy', 64, 393_216, 4)).toMatchObject({ stalled: false, answered: 256 });
  });

  // What both sides may have on the way without the right has to fit into the buffers: small answers and large requests
  // fill them at the same time.
  it('are all answered where they are small, and many', { timeout: 70_000 }, async () => {
    expect(await echoes(where, 'with-remedy', 128, 3_072, 1, 150)).toMatchObject({ stalled: false, answered: 19_200 });
  });

  it.skipIf(READS_WHILE_WRITING)('wait for ever without the bulk right', { timeout: 70_000 }, async () => {
    // Where the buffers of the network happen to be large enough once, they are not the next time.
    expect(await echoes(where, 'without-remedy', 64, 393_216, 50)).toMatchObject({ stalled: true });
    // It is not the switch that breaks something: what fits into the network's buffers is answered.
    expect(await echoes(where, 'without-remedy', 2, 1_000)).toMatchObject({ stalled: false, answered: 2 });
  });
});
