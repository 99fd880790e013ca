// Makes the echoes of test/deadlock.test.ts on several versions of Node.js, with and without the remedy, and prints a
// table. Takes the versions from the npm registry: node test/tools/deadlock-on-node-lines.mjs [20 22 24 26]
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const ECHOES = fileURLToPath(new URL('../fixtures/echoes.mjs', import.meta.url));
const lines = process.argv.length > 2 ? process.argv.slice(2) : ['20', '22', '24', '26'];
const WORK = ['64', '393216'];
const ROUNDS = '40';

function onLine(line, ...command) {
  return execFileSync('npx', ['-y', '-p', `node@${line}`, 'node', ...command], { encoding: 'utf8' }).trim();
}

function echoes(line, where, remedy, rounds) {
  const { stalled, answered, megabytesPerSecond } = JSON.parse(onLine(line, ECHOES, where, remedy, ...WORK, rounds));
  return stalled ? `hangs after ${answered}` : `${megabytesPerSecond} MB/s`;
}

const table = {};
for (const line of lines) {
  const version = onLine(line, '--version');
  table[version] = {};
  for (const where of ['tcp', 'unix']) {
    for (const remedy of ['with-remedy', 'without-remedy']) {
      table[version][`${where} ${remedy}`] = echoes(line, where, remedy, ROUNDS);
    }
  }
}
console.table(table);
