// What the manager costs and keeps to: memory, eviction, crashes, isolation, text, batching, overload, turmoil. benchmarks/models/ has
// a file for each.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { printTables, printTargets } from './models/report.mjs';
import { machine } from './support.mjs';

const WORKS = ['memory', 'eviction', 'crash', 'isolation', 'overhead', 'text', 'batching', 'overload', 'turmoil'];
const HELP = `pnpm bench models [options]
  --only TEXT    only the works whose name has TEXT, a regular expression: ${WORKS.join(', ')}
  --rounds N     how often what is compared is measured (default 5)
  --quick        one short round of each, to see that everything runs
  --json FILE    also write all figures (benchmarks/results/ is not committed)`;

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    rounds: { type: 'string', default: '5' },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
  allowPositionals: true,
});
if (options.help) {
  console.log(HELP);
  process.exit();
}

const { quick } = options;
const rounds = quick ? 1 : Number(options.rounds);
const heading = [`Models behind a managed server; 1 MB = ${2 ** 20} bytes, medians of ${rounds} round(s)`, machine()];
console.log(`${heading.join('\n')}\n`);

const folder = mkdtempSync(join(tmpdir(), 'models-'));
const targets = [];
const results = {};
const failures = [];
try {
  for (const work of WORKS.filter((name) => new RegExp(options.only).test(name))) {
    try {
      const { measure } = await import(`./models/${work}.mjs`);
      const say = (text) => console.error(`${work}: ${text}`);
      const result = await measure({ folder, rounds, quick, say });
      printTables(result.tables);
      targets.push(...result.targets.map((target) => ({ ...target, name: `${work}: ${target.name}` })));
      results[work] = result.figures;
    } catch (error) {
      failures.push(`${work}: ${error.message}`);
    }
  }
} finally {
  rmSync(folder, { recursive: true });
}
if (targets.length > 0) printTargets(targets);
for (const failure of failures) console.log(`\nFailed: ${failure}`);
if (options.json) {
  mkdirSync(dirname(options.json), { recursive: true });
  writeFileSync(options.json, `${JSON.stringify({ heading, options, targets, failures, results }, null, 2)}\n`);
}
