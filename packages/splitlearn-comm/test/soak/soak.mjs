import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CommError, ExponentialBackoff, FixedDelay, GRPCComputeClient, supportedEncodings } from '@splitlearn/comm';
import { FaultRelay } from '@splitlearn/comm/testing';
import { fillPool, KINDS } from './calls.mjs';
import { memory } from './memory.mjs';
import { Random } from './random.mjs';
import { ServerProcess } from './server-process.mjs';
import { Weather } from './weather.mjs';

// A server in a process of its own, clients of all kinds, and a bad network between them, for as long as is wanted. From
// time to time the network calms down, all calls end, and it is looked whether everything adds up.

/** How much later than it should a call may end: the machine may be busy. */
const LATE_MS = 10_000;
const MAX_ATTEMPTS = 4;
/** The longest that comm keeps a buffer that nobody uses, and a little more. */
const KEPT_BUFFERS_MS = 11_000;
/** How much more may be held at the end than in the middle, in MiB. RSS is the allocator's, and wavers. */
const GROWTH = { heap: 4, external: 8, rss: 64 };

/** The ends that a call may have beside a result. */
const ALLOWED = {
  UNAVAILABLE: ['NOT_SENT', 'CONNECTION_LOST', 'STALLED'],
  DEADLINE_EXCEEDED: [undefined],
  RESOURCE_EXHAUSTED: ['TOO_MANY_CALLS', 'TOO_MANY_BYTES'],
  CANCELLED: [undefined],
};
/** Those that say that the server has not begun the call. */
const NOT_BEGUN = ['NOT_SENT', 'TOO_MANY_CALLS', 'TOO_MANY_BYTES'];

function clientsOf(random, tcp, unix) {
  const compressing = supportedEncodings().includes('zstd') ? 'zstd' : 'gzip';
  const backoff = () =>
    new ExponentialBackoff({ maxAttempts: MAX_ATTEMPTS, initialDelayMs: 20, random: random.fork().next });
  const kinds = [
    { name: 'exchange', address: tcp, options: {} },
    { name: 'exchange, unix', address: unix, options: {} },
    { name: 'exchange, gzip, retries', address: tcp, options: { encoding: 'gzip', retry: backoff() } },
    { name: `exchange, unix, ${compressing}`, address: unix, options: { encoding: compressing } },
    { name: 'exchange, unix, float16, retries', address: unix, options: { encoding: 'float16', retry: backoff() } },
    { name: 'exchange, int8', address: tcp, options: { encoding: 'int8' } },
    { name: 'exchange, both, auto', address: [tcp, unix], options: { encoding: 'auto' } },
    {
      name: 'exchange, both, retries',
      address: [unix, tcp],
      options: { balancing: 'round-robin', retry: new FixedDelay({ maxAttempts: MAX_ATTEMPTS, delayMs: 30 }) },
    },
    { name: 'gRPC', address: tcp, options: { exchange: false } },
    { name: 'gRPC, unix, bfloat16', address: unix, options: { exchange: false, encoding: 'bfloat16' } },
    { name: 'gRPC, retries', address: tcp, options: { exchange: false, retry: backoff() } },
  ];
  return kinds.map(({ name, address, options }) => ({
    name,
    encoding: options.encoding ?? 'raw',
    retries: options.retry !== undefined,
    client: new GRPCComputeClient(address, { connectTimeoutMs: 3_000, keepAliveMs: 2_000, ...options }),
  }));
}

/**
 * Runs a soak.
 *
 * @param minutes How long calls are made; it takes a little longer.
 * @param concurrency How many calls are under way at once, but for bursts.
 * @param log Told of what it has found so far, once an epoch.
 * @returns what it has counted, and `violations`: sentences, none if all went well.
 */
export async function soak({ minutes, seed, concurrency = 12, log = () => {} }) {
  const folder = mkdtempSync(join(tmpdir(), 'soak-'));
  const random = new Random(seed);
  const report = new Report();
  const trouble = (what) => report.violate(what);
  const onWarning = ({ name, message }) => trouble(`the client: ${name}: ${message}`);
  const onRejection = (reason) => trouble(`the client: unhandled rejection: ${reason?.stack ?? reason}`);
  process.on('warning', onWarning).on('unhandledRejection', onRejection);
  const server = new ServerProcess(`unix:${folder}/server.sock`, trouble);
  try {
    const port = await server.ask('start');
    const relays = [
      new FaultRelay(`127.0.0.1:${port}`, { random: random.fork().next }),
      new FaultRelay(`unix:${folder}/server.sock`, {
        listen: `unix:${folder}/relay.sock`,
        random: random.fork().next,
      }),
    ];
    const [tcp, unix] = await Promise.all(relays.map((relay) => relay.start()));
    const weathers = relays.map((relay) => new Weather(relay, random.fork()));
    const clients = clientsOf(random, tcp, unix);
    fillPool(random.fork());

    let endMs = Date.now() + minutes * 60_000;
    const epochMs = Math.min(60_000, (minutes * 60_000) / 3);
    while (Date.now() < endMs) {
      const callers = Array.from({ length: concurrency }, () => random.fork());
      const untilMs = Math.min(endMs, Date.now() + epochMs);
      for (const weather of weathers) weather.begin();
      await Promise.all(callers.map((own) => keepCalling(own, clients, untilMs, report)));
      await Promise.all(weathers.map((weather) => weather.calm()));
      await settle(server, relays, clients, report);
      const calmMs = Date.now();
      report.addMemory(await sampleMemory(server, report.memory.at(-1)));
      endMs += Date.now() - calmMs;
      report.faults = weathers.map(({ counts }) => counts);
      log(report);
    }

    await Promise.all(clients.map(({ client }) => client.close()));
    if (!(await eventually(() => relays.every((relay) => relay.getStatistics().open === 0)))) {
      trouble('clients that have been closed keep connections open');
    }
    const noConnection = async () => (await server.ask('state')).every(({ connections }) => connections === 0);
    if (!(await eventually(noConnection))) trouble('the server keeps connections of clients that are gone');
    await Promise.all(relays.map((relay) => relay.close()));
    await server.stop();
    report.assertFlat();
  } finally {
    process.off('warning', onWarning).off('unhandledRejection', onRejection);
    rmSync(folder, { recursive: true, force: true });
  }
  return report;
}

/**
 * What both sides hold. Buffers for large messages are kept for some seconds after they were used last, and one of 8 MiB is as
 * much as may be lost in an hour: where there is more than before, it is looked again until they have gone. What is lost stays.
 */
async function sampleMemory(server, before) {
  const take = async () => ({ client: await memory(), server: await server.ask('memory') });
  const hasGrown = (sample) => ['client', 'server'].some((side) => sample[side].external > before[side].external + 1);
  let sample = await take();
  const untilMs = Date.now() + KEPT_BUFFERS_MS;
  while (before && hasGrown(sample) && Date.now() < untilMs) {
    await sleep(500);
    sample = await take();
  }
  return sample;
}

async function keepCalling(random, clients, untilMs, report) {
  while (Date.now() < untilMs) {
    const client = random.pick(clients);
    const burst = random.chance(0.01) ? 40 : 1;
    await Promise.all(Array.from({ length: burst }, () => call(random, client, report)));
    if (random.chance(0.5)) await sleep(random.between(0, 20));
  }
}

/** Makes a call, and sees to it that it ends, and how. */
async function call(random, { name, client, encoding, retries }, report) {
  const kind = random.weighted(KINDS);
  const requestId = report.nextId();
  const idempotent = random.chance(0.5);
  const startMs = performance.now();
  const made = kind.run({ random, client, encoding, call: { requestId, ...(idempotent && { idempotent }) } });
  const { limitMs, promise, isSession = false, isNotCounted = false, mayBeCancelled = false, mayFailUnsent } = made;
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, limitMs + LATE_MS, 'LATE');
  });
  const outcome = await Promise.race([promise.then(ok, (error) => ({ error })), late]);
  clearTimeout(timer);
  const lateMs = performance.now() - startMs - limitMs;
  const what = `${requestId} (${kind.name}, ${name})`;
  const [text, reason] = judge(outcome, mayBeCancelled, what, report);
  report.count(kind.name, name, text, lateMs);
  if (isNotCounted) return;
  const mayRepeat = retries && idempotent && !isSession;
  const most = mayRepeat ? MAX_ATTEMPTS : NOT_BEGUN.includes(reason) ? 0 : 1;
  report.expectExecutions(requestId, {
    what: `${what}: ${text}`,
    least: text === 'OK' && !mayFailUnsent ? 1 : 0,
    most,
  });
}

function ok() {
  return {};
}

/** The name of a call's end, and its reason. */
function judge(outcome, mayBeCancelled, what, report) {
  if (outcome === 'LATE') {
    report.violate(`${what} does not end`);
    return ['LATE'];
  }
  const { error } = outcome;
  if (!error) return ['OK'];
  if (!(error instanceof CommError)) {
    report.violate(`${what} failed with no CommError: ${error.stack ?? error}`);
    return ['ERROR'];
  }
  const { code, reason } = error;
  if (!ALLOWED[code]?.includes(reason) || (code === 'CANCELLED' && !mayBeCancelled)) {
    report.violate(`${what} failed with ${code} (${reason}): ${error.message} ${error.cause?.stack ?? ''}`);
  }
  return [reason ? `${code} (${reason})` : code, reason];
}

/** All calls have ended, and the network is well: both sides must know of none, and executions must add up. */
async function settle(server, relays, clients, report) {
  for (const { name, client } of clients) {
    const { inFlight } = client.getStatistics();
    if (inFlight !== 0) report.violate(`the client '${name}' has ${inFlight} calls in flight after all have ended`);
  }
  const idle = async () => (await server.ask('state')).every(({ inFlight }) => inFlight === 0);
  if (!(await eventually(idle))) {
    report.violate(`the server has calls in flight after all have ended: ${JSON.stringify(await server.ask('state'))}`);
  }
  if (!(await eventually(() => isQuiet(relays))))
    report.violate('connections go on sending after all calls have ended');
  report.compareExecutions(await server.ask('executions'));
}

/** Whether all that was on the way has arrived: requests that their callers have given up may still be executed. */
async function isQuiet(relays) {
  const carried = () =>
    relays.map((relay) => relay.getStatistics()).map((one) => one.bytesToServer + one.bytesToClient);
  const before = carried();
  await sleep(300);
  return String(carried()) === String(before);
}

async function eventually(isSo) {
  const untilMs = Date.now() + LATE_MS;
  while (!(await isSo())) {
    if (Date.now() > untilMs) return false;
    await sleep(20);
  }
  return true;
}

/** What a soak has found. */
class Report {
  calls = 0;
  violations = [];
  /** How often each end was seen, by kind of call and by client. */
  byKind = {};
  byClient = {};
  /** How late calls were at the most, by kind and by client. */
  lateMs = {};
  memory = [];
  faults = [];
  #expected = new Map();

  nextId() {
    return `call-${++this.calls}`;
  }

  violate(what) {
    // One is enough to fail, and a broken build has very many.
    if (this.violations.length < 100) this.violations.push(what);
  }

  count(kind, client, end, lateMs) {
    for (const [counts, name] of [
      [this.byKind, kind],
      [this.byClient, client],
    ]) {
      counts[name] ??= {};
      counts[name][end] = (counts[name][end] ?? 0) + 1;
    }
    for (const name of [kind, client]) this.lateMs[name] = Math.round(Math.max(this.lateMs[name] ?? 0, lateMs));
  }

  expectExecutions(requestId, expected) {
    this.#expected.set(requestId, expected);
  }

  /** @param executions Since this was called before. */
  compareExecutions(executions = []) {
    const counts = new Map(executions);
    for (const [requestId, { what, least, most }] of this.#expected) {
      const count = counts.get(requestId) ?? 0;
      if (count < least || count > most) this.violate(`${what}, but was executed ${count} times`);
      counts.delete(requestId);
    }
    this.#expected.clear();
    for (const [requestId, count] of counts) this.violate(`${requestId} was executed ${count} times after its end`);
  }

  addMemory(sample) {
    this.memory.push(sample);
  }

  /** The last third of the run must hold no more than the middle one. */
  assertFlat() {
    const third = Math.floor(this.memory.length / 3);
    if (third === 0) return;
    for (const side of ['client', 'server']) {
      for (const [name, most] of Object.entries(GROWTH)) {
        const values = this.memory.map((sample) => sample[side]?.[name] ?? 0);
        const growth = mean(values.slice(-third)) - mean(values.slice(-2 * third, -third));
        if (growth > most) this.violate(`the ${side}'s ${name} has grown by ${growth.toFixed(1)} MiB`);
      }
    }
  }
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
