// Installs the packed packages as a user does, with plain npm in an empty folder, and runs README.md's examples there:
// comm alone, which must bring no model runtime along, and then both. Needs the package registry.
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readExample } from './readme-examples.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = join(root, 'README.md');
const { packageManager, devDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
const folder = mkdtempSync(join(tmpdir(), 'splitlearn-packed-'));
const tarballs = join(folder, 'tarballs');

// A user's shell knows nothing of the package manager that runs this script.
const inherited = /^(NODE_PATH$|p?npm_(?!config_(registry|userconfig|cafile|cache|.*proxy)$))/i;
const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !inherited.test(name)));

/** @type {import('node:child_process').ChildProcess | undefined} */
let child;
process.on('exit', () => {
  killGroup();
  rmSync(folder, { recursive: true, force: true });
});
process.on('SIGINT', () => process.exit(1));
process.on('SIGTERM', () => process.exit(1));

/**
 * Runs one program to its end, in a process group of its own, so that nothing it starts outlives it.
 *
 * @param {string} cwd
 * @param {number} timeoutSeconds
 * @param {[string, ...string[]]} commandLine
 * @param {Record<string, string>} [variables]
 */
async function run(cwd, timeoutSeconds, [command, ...parameters], variables = {}) {
  const started = performance.now();
  const env = { ...environment, ...variables };
  child = spawn(command, parameters, { cwd, env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout?.on('data', (bytes) => {
    output += bytes;
  });
  child.stderr?.on('data', (bytes) => {
    output += bytes;
  });
  const timer = setTimeout(killGroup, timeoutSeconds * 1000);
  const status = await new Promise((resolve, reject) => {
    child?.on('close', (code, signal) => resolve(code ?? signal)).on('error', reject);
  });
  clearTimeout(timer);
  killGroup();
  child = undefined;
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`$ ${[command, ...parameters].join(' ')}  # ${seconds} s`);
  console.log(output.trim().replace(/^/gm, '    '));
  if (status === 'SIGKILL') throw new Error(`${command} did not end by itself within ${timeoutSeconds} s.`);
  if (status !== 0) throw new Error(`${command} ended with ${status}.`);
}

function killGroup() {
  try {
    if (child?.pid) process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It has ended, and all that it started.
  }
}

/**
 * An empty project with the packages in it.
 *
 * @param {string} name
 * @param {string[]} packages
 * @param {Record<string, string>} [variables]
 */
async function install(name, packages, variables) {
  const project = join(folder, name);
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }\n');
  await run(project, 600, ['npm', 'install', '--no-audit', '--no-fund', ...packages], variables);
  const { packages: installed } = JSON.parse(readFileSync(join(project, 'node_modules/.package-lock.json'), 'utf8'));
  return { project, installed: Object.keys(installed).map((path) => path.replace(/^.*node_modules\//, '')) };
}

/**
 * @param {string} project
 * @param {string} name
 */
async function runExample(project, name) {
  writeFileSync(join(project, `${name}.mjs`), readExample(readme, name));
  await run(project, 120, [process.execPath, `${name}.mjs`]);
}

/**
 * Compiles a program against the installed types, all of them checked.
 *
 * @param {string} project
 * @param {string} file
 */
async function compile(project, file) {
  cpSync(join(root, 'e2e', file), join(project, file));
  const options = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2022', '--types', 'node'];
  await run(project, 120, [join(root, 'node_modules/.bin/tsc'), '--ignoreConfig', ...options, file]);
}

for (const name of ['managed', 'echo']) readExample(readme, name); // better to miss one now than in some minutes

for (const name of ['splitlearn-comm', 'splitlearn-manager']) {
  await run(join(root, 'packages', name), 120, ['npx', '-y', packageManager, 'pack', '--pack-destination', tarballs]);
}
const [comm = '', manager = ''] = readdirSync(tarballs)
  .sort()
  .map((file) => join(tarballs, file));

console.log('\n-- comm alone');
const types = `@types/node@${devDependencies['@types/node']}`;
const alone = await install('comm-alone', [comm, types]);
const unwanted = alone.installed.filter((name) =>
  /^(@splitlearn\/manager|onnxruntime|@xenova|@huggingface)/.test(name),
);
if (unwanted.length > 0) throw new Error(`@splitlearn/comm brought along ${unwanted}.`);
await runExample(alone.project, 'echo');
await compile(alone.project, 'comm-user.ts');

console.log('\n-- comm and manager');
const both = await install('both', [comm, manager, types], { ONNXRUNTIME_NODE_INSTALL: 'skip' });
for (const name of ['@splitlearn/comm', 'onnxruntime-node', '@grpc/grpc-js']) {
  const copies = both.installed.filter((installed) => installed === name).length;
  if (copies !== 1) throw new Error(`There are ${copies} copies of ${name}.`);
}
await runExample(both.project, 'managed');
await compile(both.project, 'manager-user.ts');
await run(both.project, 60, ['npx', '--no', '--', '@splitlearn/manager', '--version']);
await run(both.project, 60, [
  'npx',
  '--no',
  'splitlearn',
  'run',
  'tiny-gpt2',
  'In the beginning',
  '--max-new-tokens=8',
]);
