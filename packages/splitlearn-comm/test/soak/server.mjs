// The server of a soak, in a process of its own: echoes, and counts how often each request was executed.
import { setTimeout as sleep } from 'node:timers/promises';
import { AsyncGRPCComputeServer } from '@splitlearn/comm';
import { memory } from './memory.mjs';

const [, , unixAddress] = process.argv;

const trouble = (what) => process.send({ trouble: `the server: ${what}` });
process.on('warning', ({ name, message }) => trouble(`${name}: ${message}`));
process.on('unhandledRejection', (reason) => trouble(`unhandled rejection: ${reason?.stack ?? reason}`));
process.on('uncaughtException', ({ stack }) => trouble(`uncaught exception: ${stack}`));

const executions = new Map();

function executed({ requestId }) {
  executions.set(requestId, (executions.get(requestId) ?? 0) + 1);
}

const computeFn = {
  async compute({ inputs, parameters }, context) {
    executed(context);
    const delayMs = parameters?.delayMs ?? 0;
    if (delayMs > 0) await sleep(delayMs, undefined, { signal: context.signal });
    return { outputs: inputs };
  },
  async *stream(requests, context) {
    executed(context);
    for await (const { inputs, parameters } of requests) {
      for (let copies = parameters?.copies ?? 1; copies > 0; copies--) yield { outputs: inputs };
    }
  },
};

const shared = {
  computeFn,
  logger: { warn: trouble, error: trouble },
  limits: { maxCallsPerConnection: 24, maxRequestBytes: 96 * 2 ** 20, keepAliveMs: 2_000 },
};
const servers = [
  new AsyncGRPCComputeServer({ ...shared, port: 0 }),
  new AsyncGRPCComputeServer({ ...shared, address: unixAddress }),
];

const answers = {
  async start() {
    const [port] = await Promise.all(servers.map((server) => server.start()));
    return port;
  },
  /** What has been executed since this was asked before. */
  executions() {
    const all = [...executions];
    executions.clear();
    return all;
  },
  state() {
    return servers.map((server) => ({
      inFlight: server.getStatistics().inFlight,
      ...server.getConnectionStatistics(),
    }));
  },
  memory,
  async stop() {
    await Promise.all(servers.map((server) => server.stop({ graceMs: 2_000 })));
    process.disconnect();
  },
};

process.on('message', async ({ number, ask }) => {
  const value = await answers[ask]();
  if (process.connected) process.send({ number, value });
});
process.on('disconnect', () => setTimeout(() => process.exit(), 1_000).unref());
