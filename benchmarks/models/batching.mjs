// What it brings to compute requests together that arrive together, and what it costs those that come alone.
import { median, percentile } from '../support.mjs';
import { writeBatchModel } from './onnx-files.mjs';
import { startProcess } from './processes.mjs';
import { atLeast, atMost, percent, short } from './report.mjs';

const IN_FLIGHT = 32;
const VARIANTS = {
  'without batching': undefined,
  'maxBatchSize 1': { maxBatchSize: 1 },
  'maxBatchSize 32': { maxBatchSize: 32 },
};
const [OFF, ONE, MANY] = Object.keys(VARIANTS);
const COMPARED = 256;

export async function measure({ folder, rounds, quick, say }) {
  const source = writeBatchModel(folder);
  const models = Object.entries(VARIANTS).map(([modelId, batching]) => ({
    ...{ modelId, source, threads: 1 },
    ...(batching && { batching }),
  }));
  const server = await startProcess('./server.mjs', models, { maxModels: models.length });
  const client = await startProcess('./load-client.mjs', await server.ask('address'));
  try {
    const ms = quick ? 500 : 3_000;
    for (const model of Object.keys(VARIANTS)) await client.ask('closed', { model, inFlight: IN_FLIGHT, ms: 500 });
    const busy = Object.fromEntries([ONE, MANY].map((model) => [model, []]));
    const alone = Object.fromEntries(Object.keys(VARIANTS).map((model) => [model, []]));
    for (let round = 0; round < rounds; round++) {
      say(`round ${round + 1}`);
      for (const model of inTurn([ONE, MANY], round)) {
        busy[model].push(figures(await client.ask('closed', { model, inFlight: IN_FLIGHT, ms })));
      }
      // In short turns: what is compared is closer than two seconds of a machine are to the next two.
      const turns = quick ? 4 : 12;
      const latencies = Object.fromEntries(Object.keys(VARIANTS).map((model) => [model, []]));
      for (let turn = 0; turn < turns; turn++) {
        for (const model of inTurn(Object.keys(VARIANTS), turn)) {
          const closed = await client.ask('closed', { model, inFlight: 1, ms: 250 });
          latencies[model].push(...closed.latencies);
        }
      }
      for (const model of Object.keys(VARIANTS)) alone[model].push(median(latencies[model]));
    }
    const equality = await compareOutputs(client);
    const ratio = (of) => median(busy[MANY].map((many, round) => of(many) / of(busy[ONE][round])));
    const slower = median(alone[MANY].map((p50, round) => (p50 / alone[OFF][round] - 1) * 100));
    const middle = (entries, figure) => short(median(entries.map((entry) => entry[figure])));
    return {
      tables: [
        {
          title: `${IN_FLIGHT} requests of one row in flight, a model with 59.6 MB of weights and one thread`,
          head: ['variant', 'requests/s', 'p50 ms', 'p99 ms', 'rows of a run', 'queue ms', 'compute ms'],
          rows: Object.entries(busy).map(([model, entries]) => [
            model,
            ...['perSecond', 'p50', 'p99', 'rows', 'queueMs', 'computeMs'].map((figure) => middle(entries, figure)),
          ]),
        },
        {
          title: 'One request in flight',
          head: ['variant', 'p50 ms'],
          rows: Object.entries(alone).map(([model, p50s]) => [model, short(median(p50s))]),
        },
        {
          title: `${COMPARED} rows, all at once and one by one`,
          head: ['rows that are equal bit for bit', 'largest difference', 'rows of the largest run'],
          rows: [[percent(equality.same * 100), String(equality.difference), String(equality.largest)]],
        },
      ],
      targets: [
        atLeast(
          `requests/s, ${MANY} / 1`,
          3,
          ratio(({ perSecond }) => perSecond),
        ),
        atMost(
          `p99, ${MANY} / 1`,
          1,
          ratio(({ p99 }) => p99),
        ),
        atMost('outputs: largest difference to unbatched', 1e-6, equality.difference),
        atMost(`one in flight: p50, ${MANY} over without, %`, 5, slower),
      ],
      figures: { busy, alone, equality },
    };
  } finally {
    await client.stop();
    await server.stop();
  }
}

function inTurn(models, round) {
  return round % 2 === 0 ? models : models.toReversed();
}

function figures({ ms, latencies, batches, queues, computes }) {
  return {
    perSecond: (latencies.length / ms) * 1_000,
    p50: percentile(latencies, 50),
    p99: percentile(latencies, 99),
    // Of runs, not of requests: a run with so many rows was counted by each of them.
    rows: batches.length / batches.reduce((sum, size) => sum + 1 / size, 0),
    queueMs: median(queues),
    computeMs: median(computes),
  };
}

async function compareOutputs(client) {
  const together = await client.ask('outputs', { model: MANY, count: COMPARED, atOnce: true });
  const alone = await client.ask('outputs', { model: OFF, count: COMPARED, atOnce: false });
  let same = 0;
  let difference = 0;
  for (const [index, { y }] of together.entries()) {
    const other = alone[index].y;
    const differences = Array.from(y, (value, at) => Math.abs(value - other[at]));
    if (differences.every((value) => value === 0)) same++;
    difference = Math.max(difference, ...differences);
  }
  return { same: same / COMPARED, difference, largest: Math.max(...together.map(({ batch }) => batch)) };
}
