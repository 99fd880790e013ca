// A server that is left no peace: its models' processes are killed, its configuration is reloaded, a route moves from one
// model to another, all while clients call. With retries every call has to succeed; without, every failure has to say that
// it may be tried again.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { CommError, ExponentialBackoff, tensor } from '@splitlearn/comm';
import { ManagedClient } from '@splitlearn/manager';
import { percentile } from '../support.mjs';
import { writeIdentity } from './onnx-files.mjs';
import { atLeast, short } from './report.mjs';

const PROGRAM = fileURLToPath(new URL('../../packages/splitlearn-manager/dist/cli/main.js', import.meta.url));
const PER_SECOND = 300;
const KILL_EVERY_MS = 10_000;
const RELOAD_EVERY_MS = 7_000;
const TIMEOUT_MS = 20_000;
const TEXT = { text: tensor(['In the beginning']) };
const NUMBERS = { x: tensor(new Float32Array(768).fill(1)) };

/** Nine in ten are numbers: by the route that moves, or by a model's name; the others continue a text. */
const REQUESTS = [
  ...Array(6).fill({ model: 'current', inputs: NUMBERS }),
  ...Array(3).fill({ model: 'steady', inputs: NUMBERS }),
  { model: 'writer', inputs: TEXT, parameters: { maxNewTokens: 4 } },
];

export async function measure({ folder, quick, say }) {
  const forMs = quick ? 25_000 : 300_000;
  const file = writeIdentity(folder);
  const place = join(folder, 'turmoil');
  mkdirSync(place);
  const configuration = join(place, 'splitlearn.yaml');
  configure(configuration, file, 0);
  const server = await serve(configuration);
  const clients = {
    'with retries': new ManagedClient(server.address, {
      timeoutMs: TIMEOUT_MS,
      retry: new ExponentialBackoff({ maxAttempts: 12, maxDelayMs: 2_000 }),
    }),
    'without retries': new ManagedClient(server.address, { timeoutMs: TIMEOUT_MS }),
  };
  const results = Object.fromEntries(Object.keys(clients).map((name) => [name, []]));
  const did = { kills: 0, reloads: 0 };
  const under = new Set();
  try {
    const beganMs = performance.now();
    const elapsedMs = () => performance.now() - beganMs;
    const kills = repeat(KILL_EVERY_MS, forMs, elapsedMs, async (count) => {
      const models = await server.models();
      const { pid, modelId } = models[count % models.length];
      if (!pid) return;
      say(`${Math.round(elapsedMs() / 1_000)} s: the process of '${modelId}' is killed`);
      process.kill(pid, 'SIGKILL');
      did.kills++;
    });
    const reloads = repeat(RELOAD_EVERY_MS, forMs, elapsedMs, async (count) => {
      configure(configuration, file, count + 1);
      process.kill(server.pid, 'SIGHUP');
      did.reloads++;
    });
    for (let count = 0; elapsedMs() < forMs; count++) {
      await sleep(Math.max(0, (count * 1_000) / PER_SECOND - elapsedMs()));
      const request = REQUESTS[Math.floor(count / 2) % REQUESTS.length];
      const name = count % 2 === 0 ? 'with retries' : 'without retries';
      const call = send(clients[name], request, results[name]).finally(() => under.delete(call));
      under.add(call);
    }
    await Promise.all([...under, kills, reloads]);
  } finally {
    for (const client of Object.values(clients)) await client.close();
    await server.stop();
  }

  const rows = Object.entries(results).map(([name, calls]) => {
    const failures = calls.flatMap(({ error }) => error ?? []);
    const typed = failures.filter((error) => error instanceof CommError && error.retryable);
    const others = [
      ...new Set(failures.filter((error) => !typed.includes(error)).map((error) => `${error}`.slice(0, 160))),
    ];
    const reasons = count(typed.map(({ reason, code }) => reason ?? code));
    return { name, calls, failures, typed, others, reasons };
  });
  const [retried, single] = rows;
  return {
    tables: [
      {
        title:
          `${PER_SECOND} requests/s for ${forMs / 1_000} s to three models and a route; ${did.kills} processes killed, ` +
          `${did.reloads} reloads, each of which moves the route to another model`,
        head: [
          'client',
          'requests',
          'succeeded',
          'failed',
          'typed and retryable',
          'reasons',
          'others',
          'p50 ms',
          'p99 ms',
        ],
        rows: rows.map(({ name, calls, failures, typed, others, reasons }) => [
          name,
          ...[calls.length, calls.length - failures.length, failures.length, typed.length].map(String),
          reasons || '–',
          others.join('; ') || '–',
          ...[50, 99].map((p) => {
            const succeeded = calls.filter(({ error }) => !error).map(({ ms }) => ms);
            return succeeded.length > 0 ? short(percentile(succeeded, p)) : '–';
          }),
        ]),
      },
    ],
    targets: [
      atLeast(
        'with retries: requests that succeed, %',
        100,
        100 - (100 * retried.failures.length) / retried.calls.length,
      ),
      atLeast(
        'without retries: failures that are typed and retryable, %',
        100,
        single.failures.length === 0 ? 100 : (100 * single.typed.length) / single.failures.length,
      ),
    ],
    figures: Object.fromEntries(
      rows.map(({ name, calls, failures }) => [name, { calls: calls.length, failures: failures.length }]),
    ),
  };
}

async function send(client, { model, inputs, parameters }, calls) {
  const call = {};
  const sentMs = performance.now();
  try {
    await client.compute(inputs, { model, ...(parameters && { parameters }) });
  } catch (error) {
    call.error = error;
  }
  call.ms = performance.now() - sentMs;
  calls.push(call);
}

/** Each time the route leads to a model that was not there before, and the one that it led to goes. */
function configure(path, file, count) {
  const numbers = (modelId) => ({ modelId, source: file, engine: 'onnx', threads: 1 });
  const version = `numbers-${count}`;
  const configuration = {
    port: 0,
    maxModels: 16,
    models: [numbers('steady'), numbers(version), { modelId: 'writer', source: 'tiny-gpt2', threads: 1 }],
    routes: { current: { targets: [{ model: version }] } },
  };
  // JSON is YAML as well. In one step, so that no reload reads half of it.
  writeFileSync(`${path}.next`, JSON.stringify(configuration));
  renameSync(`${path}.next`, path);
}

async function repeat(everyMs, untilMs, elapsedMs, work) {
  for (let count = 0; (count + 1) * everyMs < untilMs; count++) {
    await sleep((count + 1) * everyMs - elapsedMs());
    await work(count);
  }
}

/** `splitlearn serve`, as anybody would run it. */
async function serve(configuration) {
  const child = spawn(process.execPath, [PROGRAM, 'serve', '--config', configuration, '--admin-port', '0', '--json'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const exited = once(child, 'exit');
  const [line] = await Promise.race([
    once(createInterface({ input: child.stdout }), 'line'),
    exited.then(([code]) => Promise.reject(new Error(`splitlearn serve ended with ${code}`))),
  ]);
  const { address, admin } = JSON.parse(line);
  return {
    pid: child.pid,
    address,
    models: async () => (await (await fetch(`${admin}/v1/models`)).json()).models,
    async stop() {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await exited;
      clearTimeout(timer);
    },
  };
}

function count(names) {
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].map(([name, times]) => `${name} ${times}`).join(', ');
}
