// How fast tensors go there and back: comm against what else carries them. benchmarks/rpc/ has a file for each peer.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { GROUPS, VARIANTS } from './rpc/plan.mjs';
import { findPython, INSTALL_PYTHON, startPair } from './rpc/processes.mjs';
import { printResults, printTargets } from './rpc/report.mjs';
import { machine, percentile } from './support.mjs';

const HELP = `pnpm bench rpc [options]
  --rounds N     how often everything is measured (default 5; large and far tensors 3 times at most)
  --quick        one short round, to see that everything runs
  --only TEXT    only what has TEXT, a regular expression, in 'WORK: VARIANT', such as '16 MB' or '^3 KB.*(comm|raw)'
  --json FILE    also write the figures of every round (benchmarks/results/ is not committed)
  --install      first install what the Python peers need, with apt-get`;
const MB = 2 ** 20;
const MALLOC_VARIABLES = /^(MALLOC_|GLIBC_TUNABLES$|LD_PRELOAD$|NODE_OPTIONS$)/;

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    json: { type: 'string' },
    install: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
if (options.help) {
  console.log(HELP);
  process.exit();
}
if (options.install) spawnSync(INSTALL_PYTHON, { shell: true, stdio: 'inherit' });

const maxRounds = options.quick ? 1 : Number(options.rounds);
const python = findPython();
const socketFolder = mkdtempSync(join(tmpdir(), 'rpc-'));
const results = {}; // by work, then variant: the figures of each round
const failures = [];

const environment = Object.entries(process.env).filter(([name]) => MALLOC_VARIABLES.test(name));
const heading = [
  `A float32 tensor there and back over loopback; medians of ${maxRounds} round(s), 1 MB = ${MB} bytes`,
  [machine(), python?.versions].filter(Boolean).join(', '),
  `The same environment for all: ${environment.map((entry) => entry.join('=')).join(' ') || 'no malloc settings'}`,
];
console.log(`${heading.join('\n')}\n`);

for (const group of GROUPS) await run(group);
rmSync(socketFolder, { recursive: true });

printResults(results);
console.log();
printTargets(results);
if (!python) console.log(`\nSkipped: Python, which needs '${INSTALL_PYTHON}', or --install, or PYTHON=its command`);
for (const failure of failures) console.log(`\nFailed: ${failure}`);
if (options.json) {
  mkdirSync(dirname(options.json), { recursive: true });
  writeFileSync(options.json, `${JSON.stringify({ heading, options, failures, results }, null, 2)}\n`);
}

/** All variants take turns, so that each sees the machine as the others do. One that fails is left out from then on. */
async function run({ variants, works, rounds = maxRounds, ...group }) {
  const pairs = new Map();
  const broken = new Set();
  const close = async (variant) => {
    await pairs.get(variant)?.stop();
    pairs.delete(variant);
  };
  for (let round = 0; round < Math.min(rounds, maxRounds); round++) {
    for (const [work, load] of Object.entries(works)) {
      const wanted = variants.filter((variant) => isWanted(work, variant) && !broken.has(variant));
      if (wanted.length > 0) console.error(`${work}, round ${round + 1}`);
      for (const variant of round % 2 === 0 ? wanted : wanted.toReversed()) {
        const entries = entriesOf(work, variant);
        try {
          const pair = pairs.get(variant) ?? (await open(pairs, variant, group));
          entries[round] = await measure(pair, load, group);
        } catch (error) {
          broken.add(variant);
          failures.push(`${work}: ${variant}: ${error.message}`);
        }
        if (group.fresh || broken.has(variant)) await close(variant);
      }
    }
  }
  await Promise.all([...pairs.keys()].map(close));
}

function isWanted(work, variant) {
  const { server, client } = VARIANTS[variant];
  return new RegExp(options.only).test(`${work}: ${variant}`) && (python || ![server, client].includes('grpcio'));
}

function entriesOf(work, variant) {
  results[work] ??= {};
  results[work][variant] ??= [];
  return results[work][variant];
}

async function open(pairs, variant, { warmUp, delayMs }) {
  const { unix } = VARIANTS[variant];
  const listen = unix ? `unix:${join(socketFolder, `${variant}.sock`)}` : '127.0.0.1:0';
  const pair = await startPair(VARIANTS[variant], { listen, delayMs, python });
  pairs.set(variant, pair);
  for (const load of warmUp) await pair.drive(load);
  pair.idleBytes = pair.memory()?.residentBytes;
  return pair;
}

async function measure(pair, load, { leadInMs, fresh }) {
  if (leadInMs) await pair.drive({ ...load, calls: 1, ms: leadInMs });
  const { ms, latencies } = await pair.drive(options.quick ? { ...load, calls: 1, ms: (load.ms ?? 0) / 5 } : load);
  const perSecond = (latencies.length / ms) * 1_000;
  return {
    p50: percentile(latencies, 50) / 1_000,
    p99: percentile(latencies, 99) / 1_000,
    perSecond,
    mbPerSecond: (perSecond * load.bytes) / MB,
    ...(fresh && { peakPayloads: (pair.memory()?.peakBytes - pair.idleBytes) / load.bytes }),
  };
}
