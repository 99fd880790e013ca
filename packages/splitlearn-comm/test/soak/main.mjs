// pnpm soak [--minutes 60] [--seed 1] [--concurrency 12]: calls through a bad network for that long. Ends with 1 if
// anything was not right.
import { parseArgs } from 'node:util';
import { soak } from './soak.mjs';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    seed: { type: 'string' },
    concurrency: { type: 'string', default: '12' },
  },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Date.now() % 2 ** 32);
const concurrency = Number(values.concurrency);
if (!(minutes > 0 && Number.isInteger(seed) && concurrency >= 1)) {
  console.error('usage: pnpm soak [--minutes 60] [--seed 1] [--concurrency 12]');
  process.exit(2);
}
console.log(`${minutes} minutes, --seed ${seed}, Node.js ${process.version}`);

const started = performance.now();
let told = 0;
const report = await soak({ minutes, seed, concurrency, log });
console.log('\nby kind, and the most milliseconds that one ended late:');
for (const [name, ends] of Object.entries(report.byKind)) print(name, { ...ends, lateMs: report.lateMs[name] });
console.log('\nby client:');
for (const [name, ends] of Object.entries(report.byClient)) print(name, { ...ends, lateMs: report.lateMs[name] });
console.log('\nfaults (TCP, unix socket):');
for (const counts of report.faults) print('', counts);
tell(report.violations);
console.log(`\n${report.calls} calls, ${report.violations.length} violations`);
process.exitCode = report.violations.length > 0 ? 1 : 0;

function log({ calls, violations, memory }) {
  const seconds = Math.round((performance.now() - started) / 1_000);
  const { client, server } = memory.at(-1);
  tell(violations);
  const size = (side) => `heap ${side?.heap}, external ${side?.external}, RSS ${side?.rss} MiB`;
  console.log(
    `${seconds} s: ${calls} calls, ${violations.length} violations; client: ${size(client)}; server: ${size(server)}`,
  );
}

/** The violations that have not been told yet. */
function tell(violations) {
  for (const violation of violations.slice(told)) console.log(`- ${violation}`);
  told = violations.length;
}

function print(name, counts) {
  const text = Object.entries(counts).map(([end, count]) => `${end} ${count}`);
  console.log(`  ${name.padEnd(34)} ${text.join(', ')}`);
}
