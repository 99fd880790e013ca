// pnpm soak [--minutes 60] [--seed 1]: calls through a bad network for that long. Ends with 1 if anything was not right.
import { parseArgs } from 'node:util';
import { soak } from './soak.mjs';

const { values } = parseArgs({
  options: { minutes: { type: 'string', default: '60' }, seed: { type: 'string' } },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Date.now() % 2 ** 32);
if (!(minutes > 0) || !Number.isInteger(seed)) {
  console.error('usage: pnpm soak [--minutes 60] [--seed 1]');
  process.exit(2);
}
console.log(`${minutes} minutes, --seed ${seed}, Node.js ${process.version}`);

const started = performance.now();
const report = await soak({ minutes, seed, log });
console.log('\nby kind, and the most milliseconds that one ended late:');
for (const [name, ends] of Object.entries(report.byKind)) print(name, { ...ends, lateMs: report.lateMs[name] });
console.log('\nby client:');
for (const [name, ends] of Object.entries(report.byClient)) print(name, { ...ends, lateMs: report.lateMs[name] });
console.log('\nfaults (TCP, unix socket):');
for (const counts of report.faults) print('', counts);
console.log(`\n${report.calls} calls, ${report.violations.length} violations`);
for (const violation of report.violations) console.log(`- ${violation}`);
process.exitCode = report.violations.length > 0 ? 1 : 0;

function log({ calls, violations, memory }) {
  const seconds = Math.round((performance.now() - started) / 1_000);
  const { client, server } = memory.at(-1);
  const size = (side) => `heap ${side?.heap}, external ${side?.external}, RSS ${side?.rss} MiB`;
  console.log(
    `${seconds} s: ${calls} calls, ${violations.length} violations; client: ${size(client)}; server: ${size(server)}`,
  );
}

function print(name, counts) {
  const text = Object.entries(counts).map(([end, count]) => `${end} ${count}`);
  console.log(`  ${name.padEnd(34)} ${text.join(', ')}`);
}
