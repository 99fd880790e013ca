// How long a health check takes while a model computes all the time: our server against a model on the event loop.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { GRPCComputeClient } from '@splitlearn/comm';
import { works } from './health-works.support.mjs';
import { machine, median, percentile, startServer } from './support.mjs';

const ROUNDS = 5;
const ROUND_MS = 3_000;
const IN_FLIGHT = 2;
const KINDS = ['managed', 'event-loop'];

console.log(`Health checks while a model computes without a pause; medians of ${ROUNDS} rounds of ${ROUND_MS} ms`);
console.log(`${machine()}\n`);
console.log('| the model computes on | server | one run | health p50 | health p99 | slowest | p99 × managed |');
console.log('| --- | --- | --- | --- | --- | --- | --- |');
for (const work of Object.keys(works)) {
  const rounds = await compare(work);
  for (const kind of KINDS) {
    const figure = (name) => `${median(rounds[kind].map((round) => round[name])).toFixed(1)} ms`;
    const ratio = median(rounds[kind].map((round, index) => round.p99 / rounds.managed[index].p99)).toFixed(1);
    const figures = ['computeMs', 'p50', 'p99', 'max'].map(figure);
    console.log(`| ${[work, kind, ...figures, ratio].join(' | ')} |`);
  }
}

/** Both servers take turns, so that both see the machine as it is. */
async function compare(work) {
  const rounds = Object.fromEntries(KINDS.map((kind) => [kind, []]));
  for (let round = -1; round < ROUNDS; round++) {
    for (const kind of KINDS) {
      const server = await startServer('./health-server.support.mjs', kind, work);
      const result = await measure(server.address, work);
      await server.stop();
      if (round >= 0) rounds[kind].push(result); // the first round of each warms the machine up
    }
  }
  return rounds;
}

async function measure(address, work) {
  const load = fork(new URL('./health-load.support.mjs', import.meta.url), [address, work, String(IN_FLIGHT)]);
  const computeMs = [];
  load.on('message', (ms) => computeMs.push(ms));
  await once(load, 'message');

  const client = new GRPCComputeClient(address);
  const latencies = [];
  const until = performance.now() + ROUND_MS;
  while (performance.now() < until) {
    const beganMs = performance.now();
    await client.healthCheck();
    latencies.push(performance.now() - beganMs);
    await sleep(5);
  }
  await client.close();
  load.disconnect();
  await once(load, 'exit');
  const [p50, p99, max] = [50, 99, 100].map((p) => percentile(latencies, p));
  return { p50, p99, max, computeMs: median(computeMs) };
}
