import { once } from 'node:events';
import { connect as http2Connect } from 'node:http2';
import { connect } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { AsyncGRPCComputeServer, GRPCComputeClient, type Tensor, tensor } from '@splitlearn/comm';
import { loopback } from '@splitlearn/comm/testing';
import { expect, it, vi } from 'vitest';
import { memory } from './soak/memory.mjs';
import { Random } from './soak/random.mjs';
import { frameBytes, plainFrames } from './support/exchange-frames.js';
import { echo, RecordingLogger } from './support/functions.js';
import { type Conversation, hostileConversation } from './support/hostile-conversations.js';

const CONVERSATIONS = 10_000;
/** So many at a time; between them the server looks for peers that are stuck. */
const BATCH = 40;
const WARM_UP = 3_000;
const TIMEOUT_MS = 1_000;
const SWEEP_MS = TIMEOUT_MS / 4;
const MIB = 2 ** 20;
/** Enough for all that the hostile ones announce, so that the good ones are never refused. */
const MAX_REQUESTS = 128;
const SEED = Number(process.env.SEED ?? 1);

/** Has a conversation, and waits for its connection's end. */
async function converse(port: number, { writes, reads, ending }: Conversation): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  const closed = new Promise((resolve) => socket.once('close', resolve));
  if (reads) socket.resume();
  for (const bytes of writes) {
    if (socket.destroyed) break;
    socket.write(bytes);
    await turn();
  }
  // Something of it is answered first.
  if (ending !== 'stays' && socket.connecting) await Promise.race([once(socket, 'connect').catch(() => {}), closed]);
  for (let turns = 0; turns < 3; turns++) await turn();
  if (ending === 'leaves') socket.destroy();
  else if (ending === 'resets') socket.resetAndDestroy();
  else if (ending === 'ends') socket.end();
  // One that is thrown out has to read to notice.
  socket.resume();
  await closed;
}

/** As `toEqual`, but in no time. */
function assertSame(received: Tensor | undefined, sent: Tensor<'float32'>): void {
  const { data } = received as Tensor<'float32'>;
  if (Buffer.compare(bytesOf(data), bytesOf(sent.data)) !== 0) {
    throw new Error('the answer belongs to another request');
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** A client that asks one thing after the other, and takes only right answers. */
class GoodClient {
  readonly client: GRPCComputeClient;
  readonly failures: unknown[] = [];
  answers = 0;
  #stopped = false;
  readonly #numbers: Float32Array;
  readonly #done: Promise<void>;

  constructor(address: string, exchange: boolean, random: Random) {
    this.client = new GRPCComputeClient(address, { exchange, timeoutMs: 30_000 });
    this.#numbers = Float32Array.from({ length: 100_000 }, random.next);
    this.#done = this.#ask(random);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }

  async #ask(random: Random): Promise<void> {
    while (!this.#stopped) {
      const elements = random.pick([1, 25, 700, 10_000]);
      const start = random.between(0, this.#numbers.length - elements);
      const input = tensor(this.#numbers.subarray(start, start + elements));
      try {
        if (random.chance(0.8)) assertSame(await this.client.compute(input), input);
        else {
          const requests = [{ inputs: { input } }, { inputs: { input } }];
          for await (const { outputs } of this.client.stream(requests, { timeoutMs: 30_000 })) {
            assertSame(outputs.input, input);
          }
        }
        this.answers++;
      } catch (error) {
        this.failures.push(error);
      }
      await turn();
    }
  }
}

/** How calls of the largest size go that are begun and not ended, one more than the server may hold. */
async function holdAll(port: number): Promise<{ refused: number[]; reasons: unknown[] }> {
  const session = http2Connect(`http://127.0.0.1:${port}`);
  const stream = session.request({
    ':method': 'POST',
    ':path': '/splitlearn.comm.v1.ComputeService/Exchange',
    'content-type': 'application/grpc',
    te: 'trailers',
  });
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  for (let call = 1; call <= MAX_REQUESTS + 1; call++) {
    stream.write(frameBytes({ call, begin: {}, messageBytes: MIB, piece: Uint8Array.of(1) }));
  }
  stream.write(frameBytes({ call: 0, connection: { ping: true } }));
  const received = () => plainFrames(Buffer.concat(chunks));
  await vi.waitUntil(() => received().some(({ connection }) => (connection as { pong?: boolean })?.pong), {
    interval: 1,
  });
  session.destroy();
  await once(session, 'close');
  const refusals = received().filter(({ status }) => status);
  return {
    refused: refusals.map(({ call }) => call as number),
    reasons: refusals.map(({ status }) => (status as { reason: string }).reason),
  };
}

it(`serves good clients through ${CONVERSATIONS} hostile conversations, and keeps nothing of them`, {
  timeout: 120_000,
}, async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  const logger = new RecordingLogger();
  const server = new AsyncGRPCComputeServer({
    computeFn: echo,
    port: 0,
    logger,
    maxMessageLength: MIB,
    limits: {
      handshakeTimeoutMs: TIMEOUT_MS,
      slowPeerTimeoutMs: TIMEOUT_MS,
      silentPeerTimeoutMs: TIMEOUT_MS,
      maxCallsPerConnection: MAX_REQUESTS + 22,
      maxRequestBytes: MAX_REQUESTS * MIB,
    },
  });
  const port = await server.start();
  const random = new Random(SEED);
  const good = [true, false].map((exchange) => new GoodClient(`127.0.0.1:${port}`, exchange, random.fork()));
  const staying = new Set<Promise<void>>();
  const idle = async () => {
    for (let turns = 0; staying.size > 0 || server.getConnectionStatistics().connections > good.length; turns++) {
      expect(turns, 'connections that nobody closes').toBeLessThan(1_000);
      vi.advanceTimersByTime(SWEEP_MS);
      for (let times = 0; times < 20; times++) await turn();
    }
  };

  let before = await memory();
  for (let done = 0; done < CONVERSATIONS; done += BATCH) {
    const batch = Array.from({ length: BATCH }, () => hostileConversation(random));
    const ended = batch.map((conversation) => {
      const over = converse(port, conversation);
      if (conversation.ending === 'leaves' || conversation.ending === 'resets') return over;
      staying.add(over);
      void over.then(() => staying.delete(over));
      return undefined;
    });
    await Promise.all(ended);
    vi.advanceTimersByTime(SWEEP_MS);
    if (done + BATCH === WARM_UP) {
      await idle();
      before = await memory();
    }
  }
  await idle();
  const after = await memory();

  for (const one of good) await one.stop();
  expect(good.flatMap(({ failures }) => failures)).toEqual([]);
  for (const { answers } of good) expect(answers).toBeGreaterThan(CONVERSATIONS / 100);
  expect(server.getConnectionStatistics().connections).toBe(good.length);
  await vi.waitUntil(() => server.getStatistics().inFlight === 0);
  expect(after.heap - before.heap).toBeLessThan(4);
  expect(after.external - before.external).toBeLessThan(4);
  expect(after.rss - before.rss).toBeLessThan(96);

  expect(await holdAll(port)).toEqual({ refused: [MAX_REQUESTS + 1], reasons: ['TOO_MANY_BYTES'] });
  await vi.waitUntil(() => server.getConnectionStatistics().connections === good.length);
  const largest = tensor(new Uint8Array(MIB - 200).fill(7));
  for (const { client } of good) {
    expect(await client.compute(largest)).toEqual(largest);
    await client.close();
  }
  await server.stop();
  expect(logger.lines).toEqual([]);
  vi.useRealTimers();
});

// Node never frees an HTTP/2 session that refers to its socket when its peer broke the protocol and is gone.
it('keeps nothing of peers that speak no HTTP/2', async () => {
  await using pair = await loopback(echo);
  const come = async () => {
    for (let times = 0; times < 500; times++) {
      const socket = connect(pair.port, '127.0.0.1').resume();
      socket.on('error', () => {});
      const closed = once(socket, 'close');
      await once(socket, 'connect');
      socket.write(`GET / HTTP/1.1\r\nHost: x\r\n\r\n${'x'.repeat(50)}`);
      // It goes while it is told what it did.
      await turn();
      socket.destroy();
      await closed;
    }
    await vi.waitUntil(() => pair.server.getConnectionStatistics().connections === 0);
    return memory();
  };
  const before = await come();
  const after = await come();
  expect(after.heap - before.heap).toBeLessThan(1);
});
