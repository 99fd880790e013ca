// Two models under load, and the process of one is killed: what the other's callers notice, and when the killed one is
// back.
import { setTimeout as sleep } from 'node:timers/promises';
import { CommError, tensor } from '@splitlearn/comm';
import { ManagedClient } from '@splitlearn/manager';
import { median, percentile } from '../support.mjs';
import { WIDTH, writeLargeModel } from './onnx-files.mjs';
import { startProcess } from './processes.mjs';
import { atLeast, atMost, short } from './report.mjs';

const SIGNALS = ['SIGKILL', 'SIGABRT']; // SIGABRT is how native code ends its process
const EVERY_MS = 10; // both models together: 100 requests/s
const WARM_UP_MS = 1_000;
const SETTLE_MS = 500;
const GIVE_UP_MS = 20_000;

export async function measure({ folder, quick, rounds, say }) {
  const configs = ['steady', 'killed'].map((modelId) => ({
    modelId,
    source: writeLargeModel(folder, modelId),
    isolation: 'process',
    threads: 1,
  }));
  const beforeMs = quick ? 1_000 : 4_000;
  const bySignal = Object.fromEntries(SIGNALS.map((signal) => [signal, []]));
  for (let round = 0; round < rounds; round++) {
    say(`round ${round + 1}`);
    // A server of its own, as one where a model crashes again and again does not start it for ever.
    for (const [signal, crash] of Object.entries(await killInTurn(configs, beforeMs))) bySignal[signal].push(crash);
  }

  const figures = Object.fromEntries(SIGNALS.map((signal) => [signal, summary(bySignal[signal])]));
  return {
    tables: [
      {
        title:
          `Two models at ${1_000 / EVERY_MS} requests/s together; the process of one is killed, ${rounds} time(s) by each ` +
          'signal.\nThe other one meanwhile, until the killed one answers again:',
        head: [
          'signal',
          'succeeded',
          'p50 ms before',
          'meanwhile',
          'p99 ms before',
          'meanwhile',
          'p99, round by round',
        ],
        rows: SIGNALS.map((signal) => {
          const { other, before, during, ratio } = figures[signal];
          const all = [median(before), median(during), percentile(before, 99), percentile(during, 99), ratio];
          return [signal, `${other.succeeded} of ${other.sent}`, ...all.map(short)];
        }),
      },
      {
        title: 'The killed one:',
        head: ['signal', 'answers again after, ms', 'at most', 'failed', 'of them typed and retryable', 'others'],
        rows: SIGNALS.map((signal) => {
          const { recoveries, failed, typed, otherFailures } = figures[signal];
          return [
            signal,
            short(median(recoveries)),
            short(Math.max(...recoveries)),
            String(failed),
            String(typed),
            otherFailures.join('; ') || '–',
          ];
        }),
      },
    ],
    targets: SIGNALS.flatMap((signal) => {
      const { other, before, during, failed, typed } = figures[signal];
      return [
        atLeast(`${signal}: requests of the other that succeed, %`, 100, (other.succeeded / other.sent) * 100),
        atMost(`${signal}: p99 of the other meanwhile / before`, 2, percentile(during, 99) / percentile(before, 99)),
        atLeast(`${signal}: failures that are typed and retryable, %`, 100, failed > 0 ? (typed / failed) * 100 : NaN),
      ];
    }),
    figures,
  };
}

/** One server and one load; each signal in turn. */
async function killInTurn(configs, beforeMs) {
  const server = await startProcess('./server.mjs', configs, {});
  const client = new ManagedClient(await server.ask('address'), { timeoutMs: GIVE_UP_MS });
  const load = startLoad(client);
  const crashes = {};
  try {
    await sleep(WARM_UP_MS);
    for (const signal of SIGNALS) {
      const beganMs = performance.now();
      await sleep(beforeMs);
      const { pid } = await server.ask('info', 'killed');
      const killedMs = performance.now();
      process.kill(pid, signal);
      const back = await load.firstSuccess('killed', killedMs);
      await sleep(SETTLE_MS);
      crashes[signal] = { beganMs, killedMs, backMs: back.endedMs };
    }
    await load.stop();
  } finally {
    await load.stop();
    await client.close();
    await server.stop();
  }
  return Object.fromEntries(SIGNALS.map((signal) => [signal, told(load.requests, crashes[signal])]));
}

/** What one crash was like for those who called around it. */
function told(requests, { beganMs, killedMs, backMs }) {
  const sentFrom = (model, fromMs, untilMs) =>
    requests.filter((request) => request.model === model && request.sentMs >= fromMs && request.sentMs < untilMs);
  const others = sentFrom('steady', beganMs, backMs + SETTLE_MS);
  // Those that were under way when the process was killed count as well.
  const duringMs = killedMs - EVERY_MS * 2;
  return {
    recoveryMs: backMs - killedMs,
    before: sentFrom('steady', beganMs, duringMs).filter(succeeded).map(latency),
    during: sentFrom('steady', duringMs, backMs).filter(succeeded).map(latency),
    others: { sent: others.length, succeeded: others.filter(succeeded).length },
    failures: sentFrom('killed', beganMs, backMs + SETTLE_MS).filter((request) => !succeeded(request)),
  };
}

function summary(crashes) {
  const pool = (figure) => crashes.flatMap((crash) => crash[figure]);
  const sum = (figure) => crashes.reduce((total, { others }) => total + others[figure], 0);
  const failures = pool('failures').map(({ error }) => error);
  const typed = failures.filter(isTyped);
  return {
    other: { sent: sum('sent'), succeeded: sum('succeeded') },
    before: pool('before'),
    during: pool('during'),
    ratio: median(crashes.map(({ before, during }) => percentile(during, 99) / percentile(before, 99))),
    recoveries: crashes.map(({ recoveryMs }) => recoveryMs),
    failed: failures.length,
    typed: typed.length,
    otherFailures: [...new Set(failures.filter((error) => !isTyped(error)).map((error) => `${error}`))],
  };
}

function isTyped(error) {
  const { code, reason, retryable } = error;
  return error instanceof CommError && code === 'UNAVAILABLE' && reason === 'MODEL_CRASHED' && retryable;
}

/** Sends a request each EVERY_MS, to one model and the other in turn, whether those before have been answered or not. */
function startLoad(client) {
  const requests = [];
  const listeners = new Set();
  const under = new Set();
  let stopped = false;
  const x = tensor(new Float32Array(WIDTH).fill(1), [1, WIDTH]);
  async function send(model) {
    const request = { model, sentMs: performance.now() };
    requests.push(request);
    try {
      await client.compute({ x }, { model });
    } catch (error) {
      request.error = error;
    }
    request.endedMs = performance.now();
    for (const listener of listeners) listener(request);
  }
  const sending = (async () => {
    const beganMs = performance.now();
    for (let count = 0; !stopped; count++) {
      await sleep(Math.max(0, beganMs + count * EVERY_MS - performance.now()));
      const request = send(count % 2 === 0 ? 'steady' : 'killed').finally(() => under.delete(request));
      under.add(request);
    }
  })();
  return {
    requests,
    /** The first request for a model that was sent after a time and has succeeded. */
    firstSuccess(model, fromMs) {
      return new Promise((resolve, reject) => {
        const done = (settle, result) => {
          clearTimeout(timer);
          listeners.delete(listener);
          settle(result);
        };
        const timer = setTimeout(() => done(reject, new Error(`'${model}' does not come back`)), GIVE_UP_MS);
        const listener = (request) => {
          if (request.model === model && request.sentMs > fromMs && !request.error) done(resolve, request);
        };
        listeners.add(listener);
      });
    },
    /** May be called twice. */
    async stop() {
      stopped = true;
      await sending;
      await Promise.all(under);
    },
  };
}

function succeeded({ error, endedMs }) {
  return endedMs !== undefined && error === undefined;
}

function latency({ sentMs, endedMs }) {
  return endedMs - sentMs;
}
