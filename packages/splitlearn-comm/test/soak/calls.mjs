import { setTimeout as sleep } from 'node:timers/promises';
import { tensor } from '@splitlearn/comm';

// The kinds of calls that a soak makes. Each is given a caller (see soak.mjs), and returns what it promises: how long it
// may take, and a promise that fulfils when it was answered right.

const KIB = 1024;
const TIMEOUT_MS = 10_000;
/** Small integers: they survive all encodings but int8. Calls take parts of it, so that none is like another. */
const pool = new Float32Array(2 ** 22);
export function fillPool(random) {
  for (let at = 0; at < pool.length; at++) pool[at] = random.between(0, 127);
}

function input(random, bytes) {
  const elements = Math.max(1, Math.floor(bytes / 4));
  const start = random.between(0, pool.length - elements);
  return tensor(pool.subarray(start, start + elements));
}

/** The caller got the answer to another question, or a damaged one. */
class WrongAnswer extends Error {}

function assertEcho(sent, received, encoding) {
  if (!received || received.dtype !== sent.dtype || String(received.shape) !== String(sent.shape)) {
    throw new WrongAnswer(`${sent.dtype}[${sent.shape}] came back as ${received?.dtype}[${received?.shape}]`);
  }
  if (encoding === 'int8') {
    const off = sent.data.findIndex((value, index) => !(Math.abs(value - received.data[index]) <= 0.51));
    if (off >= 0) throw new WrongAnswer(`element ${off}: ${sent.data[off]} came back as ${received.data[off]}`);
  } else if (Buffer.compare(bytesOf(sent.data), bytesOf(received.data)) !== 0) {
    throw new WrongAnswer(`${sent.data.byteLength} bytes came back as others`);
  }
}

function bytesOf({ buffer, byteOffset, byteLength }) {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function unary(bytes, options = {}) {
  return ({ random, client, encoding, call }) => {
    const sent = input(random, bytes);
    const timeoutMs = options.timeoutMs?.(random) ?? TIMEOUT_MS;
    const delayMs = options.delayMs?.(random) ?? 0;
    const run = async () => {
      const { input: received } = await client.compute(
        { input: sent },
        { ...call, timeoutMs, ...(delayMs > 0 && { parameters: { delayMs } }) },
      );
      assertEcho(sent, received, encoding);
    };
    return { limitMs: timeoutMs, promise: run() };
  };
}

const sizes = [100, 3 * KIB, 393 * KIB, 4096 * KIB];

/** A call whose time is up at any point of its life. */
function hurried(caller) {
  const { random } = caller;
  return unary(random.pick(sizes), {
    timeoutMs: () => random.between(1, 200),
    delayMs: () => (random.chance(0.5) ? random.between(0, 200) : 0),
  })(caller);
}

/** A call that is taken back at any point of its life. */
function cancelled(caller) {
  const { random, call } = caller;
  const controller = new AbortController();
  const afterMs = random.between(0, 150);
  const timer = setTimeout(() => controller.abort(), afterMs);
  const kind = random.chance(0.7)
    ? unary(random.pick(sizes), { delayMs: () => (random.chance(0.5) ? random.between(0, 200) : 0) })
    : session({ messages: [1, 200], bytes: [10, 8_000] });
  const { promise } = kind({ ...caller, call: { ...call, signal: controller.signal } });
  return { limitMs: afterMs, promise: promise.finally(() => clearTimeout(timer)), mayBeCancelled: true };
}

/**
 * A session: what is sent comes back in its order.
 *
 * @param copies How often each message comes back.
 * @param pauseMs How long the reader takes for each.
 * @param leaves Whether the reader goes before the end.
 * @param fails Whether the source of the requests does.
 */
function session({ messages, bytes, copies = 1, pauseMs = 0, leaves = false, fails = false }) {
  return ({ random, client, encoding, call }) => {
    const count = random.between(...messages);
    const sent = [];
    const failure = new Error('the source of requests failed');
    const end = random.between(1, count);
    async function* requests() {
      for (let index = 0; index < count; index++) {
        if (fails && index === end) throw failure;
        sent.push(input(random, random.between(...bytes)));
        yield { inputs: { input: sent.at(-1) }, ...(copies > 1 && { parameters: { copies } }) };
      }
      if (fails) throw failure;
    }
    const run = async () => {
      let received = 0;
      try {
        for await (const { outputs } of client.stream(requests(), { ...call, timeoutMs: TIMEOUT_MS })) {
          assertEcho(sent[Math.floor(received / copies)], outputs.input, encoding);
          received++;
          if (leaves && received === end) return;
          if (pauseMs > 0) await sleep(random.between(0, pauseMs));
        }
      } catch (error) {
        if (error === failure) return;
        throw error;
      }
      if (fails) throw new WrongAnswer('the session did not end with the error of its source');
      if (received !== count * copies) throw new WrongAnswer(`${received} answers, not ${count * copies}`);
    };
    return { limitMs: TIMEOUT_MS, promise: run(), isSession: true, mayFailUnsent: fails };
  };
}

async function inform({ client }) {
  const info = await client.getServiceInfo({ timeoutMs: TIMEOUT_MS });
  if (info.name !== '@splitlearn/comm') throw new WrongAnswer(`service info of ${info.name}`);
  if ((await client.healthCheck('', { timeoutMs: TIMEOUT_MS })) !== 'SERVING') throw new WrongAnswer('not serving');
}

export const KINDS = [
  { name: '100 B', weight: 30, run: unary(100) },
  { name: '3 KB', weight: 20, run: unary(3 * KIB) },
  { name: '393 KB', weight: 12, run: unary(393 * KIB) },
  { name: '4 MB', weight: 3, run: unary(4096 * KIB) },
  { name: 'hurried', weight: 10, run: hurried },
  { name: 'cancelled', weight: 10, run: cancelled },
  { name: 'session', weight: 4, run: session({ messages: [1, 300], bytes: [10, 6_000] }) },
  { name: 'large session', weight: 2, run: session({ messages: [1, 12], bytes: [10_000, 600_000] }) },
  {
    name: 'slow reader',
    weight: 2,
    run: session({ messages: [5, 20], bytes: [1_000, 300_000], copies: 2, pauseMs: 40 }),
  },
  { name: 'early leaver', weight: 2, run: session({ messages: [5, 50], bytes: [10, 100_000], leaves: true }) },
  { name: 'failing source', weight: 1, run: session({ messages: [1, 20], bytes: [10, 50_000], fails: true }) },
  {
    name: 'info',
    weight: 1,
    run: (caller) => ({ limitMs: 2 * TIMEOUT_MS, promise: inform(caller), isNotCounted: true }),
  },
];
