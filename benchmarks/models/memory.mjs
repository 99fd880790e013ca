// Whether all memory comes back: a large model is loaded, run and unloaded again and again.
import { tensor } from '@splitlearn/comm';
import { ManagedClient } from '@splitlearn/manager';
import { median } from '../support.mjs';
import { WIDTH, writeLargeModel } from './onnx-files.mjs';
import { hasProc, residentBytes, treeBytes } from './process-memory.mjs';
import { startProcess } from './processes.mjs';
import { atMost, mb, percent, short } from './report.mjs';

const FIRST = 5; // what a process takes once for all is taken by then

export async function measure({ folder, quick, say }) {
  if (!hasProc) throw new Error('needs /proc');
  const source = writeLargeModel(folder, 'large');
  const cycles = quick ? 10 : 100;
  const runs = {};
  for (const isolation of ['process', 'thread']) runs[isolation] = await cycle({ source, isolation, cycles, say });

  const shown = Array.from({ length: cycles }, (_, index) => index + 1).filter(
    (count) => count === FIRST || count === cycles || count % 20 === 0,
  );
  const { process, thread } = runs;
  return {
    tables: [
      {
        title: `Memory of the server and all its processes, after so many cycles of load, run and unload, in MB`,
        head: ['isolation', ...shown.map(String), `after ${cycles} / after ${FIRST}`],
        rows: Object.entries(runs).map(([isolation, run]) => [
          isolation,
          ...shown.map((count) => mb(run[count - 1].afterBytes)),
          short(growth(run)),
        ]),
      },
      {
        title: 'What an unload says that came back, and what did; medians in MB',
        head: ['isolation', 'said', 'the process had', 'came back', 'said / had, worst', 'said / came back, worst'],
        rows: Object.entries(runs).map(([isolation, run]) => [
          isolation,
          ...['saidBytes', 'hadBytes', 'cameBackBytes'].map((figure) => mb(middle(run, figure))),
          isolation === 'process' ? percent(worst(run, 'hadBytes')) : '–',
          percent(worst(run, 'cameBackBytes')),
        ]),
      },
    ],
    targets: [
      atMost(`memory after ${cycles} cycles / after ${FIRST}`, 1.05, growth(process)),
      atMost('reclaimedBytes / what the process had: worst deviation, %', 10, worst(process, 'hadBytes')),
    ],
    figures: { process, thread },
  };
}

async function cycle({ source, isolation, cycles, say }) {
  const server = await startProcess('./server.mjs', [], {});
  const client = new ManagedClient(await server.ask('address'));
  const run = [];
  try {
    for (let count = 1; count <= cycles; count++) {
      if (count % 10 === 0) say(`${isolation}, cycle ${count}`);
      await server.ask('load', { modelId: 'large', source, isolation });
      await client.compute({ x: tensor(new Float32Array(WIDTH).fill(1), [1, WIDTH]) });
      const { pid } = await server.ask('info', 'large');
      const hadBytes = residentBytes(pid);
      const beforeBytes = treeBytes(server.pid).all;
      const { reclaimedBytes: saidBytes } = await server.ask('unload', 'large');
      const afterBytes = treeBytes(server.pid).all;
      run.push({ saidBytes, hadBytes, afterBytes, cameBackBytes: beforeBytes - afterBytes });
    }
  } finally {
    await client.close();
    await server.stop();
  }
  return run;
}

function growth(run) {
  return run.at(-1).afterBytes / run[FIRST - 1].afterBytes;
}

function middle(run, figure) {
  return median(run.map((entry) => entry[figure]));
}

/** How far what was said is off at the most, in percent. */
function worst(run, figure) {
  return Math.max(...run.map((entry) => Math.abs(entry.saidBytes / entry[figure] - 1) * 100));
}
