// How long a health check takes while a model computes all the time: our server against a model on the event loop.
import { setTimeout as sleep } from 'node:timers/promises';
import { GRPCComputeClient } from '@splitlearn/comm';
import { machine, median, percentile, startServer, tinyGpt2Inputs } from './support.mjs';

const ROUNDS = 5;
const ROUND_MS = 3_000;
const IN_FLIGHT = 2;

const inputs = tinyGpt2Inputs(8, 256);
const kinds = ['managed', 'event-loop'];
const servers = Object.fromEntries(
  await Promise.all(kinds.map(async (kind) => [kind, await startServer('./health-server.mjs', kind)])),
);
const rounds = { managed: [], 'event-loop': [] };

for (let round = -1; round < ROUNDS; round++) {
  for (const kind of kinds) {
    const result = await measure(servers[kind].address);
    if (round >= 0) rounds[kind].push(result); // the first round of each warms up
  }
}
await Promise.all(Object.values(servers).map((server) => server.stop()));

console.log(`Health checks while the model computes: ${ROUNDS} rounds of ${ROUND_MS} ms each, medians of the rounds`);
console.log(`${machine()}\n`);
console.log('server       one run of the model   health p50   health p99   slowest');
for (const kind of kinds) {
  const figure = (name) => `${median(rounds[kind].map((round) => round[name])).toFixed(1)} ms`;
  const columns = [
    figure('computeMs').padStart(20),
    figure('p50').padStart(12),
    figure('p99').padStart(12),
    figure('max').padStart(9),
  ];
  console.log(`${kind.padEnd(13)}${columns.join(' ')}`);
}
const ratios = rounds.managed.map((round, index) => rounds['event-loop'][index].p99 / round.p99);
console.log(`\nhealth p99, event-loop over managed: ${median(ratios).toFixed(0)} ×`);

async function measure(address) {
  const load = new GRPCComputeClient(address);
  const health = new GRPCComputeClient(address);
  const controller = new AbortController();
  const computeMs = [];
  const loading = Array.from({ length: IN_FLIGHT }, async () => {
    while (!controller.signal.aborted) {
      const { timing } = await load.computeWithTiming(inputs, { outputs: ['present.0.key'] });
      computeMs.push(timing.computeMs);
    }
  });
  const latencies = [];
  const until = performance.now() + ROUND_MS;
  while (performance.now() < until) {
    const beganMs = performance.now();
    await health.healthCheck();
    latencies.push(performance.now() - beganMs);
    await sleep(5);
  }
  controller.abort();
  await Promise.all(loading);
  await Promise.all([load.close(), health.close()]);
  const [p50, p99, max] = [50, 99, 100].map((p) => percentile(latencies, p));
  return { p50, p99, max, computeMs: median(computeMs) };
}
