import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { GRPCComputeClient, tensor } from '@splitlearn/comm';
import { FaultRelay, type FaultRelayOptions, loopback } from '@splitlearn/comm/testing';
import { describe, expect, it, vi } from 'vitest';
import { type Deferred, deferred, rejection } from './support/deferred.js';
import { echo } from './support/functions.js';

const unixAddress = () => `unix:${join(tmpdir(), `${randomUUID()}.sock`)}`;

/** One end of a connection: what it has received, and how it is over. */
class Peer {
  /** Whether it stays open when the other side ends. */
  halfOpen = false;
  readonly chunks: Buffer[] = [];
  readonly log: string[] = [];
  readonly closed = deferred();
  readonly ended = deferred();

  constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => this.chunks.push(chunk));
    socket.on('end', () => {
      this.ended.resolve();
      if (!this.halfOpen) socket.end();
    });
    socket.on('error', (error: NodeJS.ErrnoException) => this.log.push(error.code ?? error.message));
    socket.on('close', () => this.closed.resolve());
  }

  get received(): Buffer {
    return Buffer.concat(this.chunks);
  }

  /** What has been received, when it is so many bytes. */
  async bytes(count: number): Promise<Buffer> {
    while (this.received.length < count) await once(this.socket, 'data');
    return this.received;
  }
}

/** A relay before a server of plain bytes that does nothing by itself. */
async function relayed(options: FaultRelayOptions = {}, serverAddress = '127.0.0.1:0') {
  const servers: Peer[] = [];
  const waiting: Deferred<Peer>[] = [];
  const listener = createServer({ allowHalfOpen: true }, (socket) => {
    const peer = new Peer(socket);
    servers.push(peer);
    waiting.shift()?.resolve(peer);
  });
  const [, path] = serverAddress.split('unix:');
  await once(path ? listener.listen(path) : listener.listen(0, '127.0.0.1'), 'listening');
  const bound = listener.address();
  const relay = new FaultRelay(typeof bound === 'object' && bound ? `127.0.0.1:${bound.port}` : serverAddress, options);
  const address = await relay.start();
  const clients: Peer[] = [];
  const dial = () => {
    const [, unixPath] = address.split('unix:');
    const port = Number(address.split(':').at(-1));
    const peer = new Peer(
      unixPath
        ? connect({ path: unixPath, allowHalfOpen: true })
        : connect({ port, host: '127.0.0.1', allowHalfOpen: true }),
    );
    clients.push(peer);
    return peer;
  };
  return {
    relay,
    address,
    dial,
    /** Both ends of a new connection. */
    open: async () => {
      const accepted = deferred<Peer>();
      waiting.push(accepted);
      const client = dial();
      return { client, server: await accepted.promise };
    },
    [Symbol.asyncDispose]: async () => {
      await relay.close();
      for (const { socket } of [...clients, ...servers]) socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
    },
  };
}

const ROUTES: [name: string, server: string, listen: string][] = [
  ['TCP', '127.0.0.1:0', '127.0.0.1:0'],
  ['a unix socket to TCP', '127.0.0.1:0', 'unix'],
  ['TCP to a unix socket', 'unix', '127.0.0.1:0'],
  ['unix sockets', 'unix', 'unix'],
];

describe('without faults', () => {
  it.each(ROUTES)('carries megabytes both ways, unharmed: %s', async (_name, server, listen) => {
    const [to, from] = [server, listen].map((address) => (address === 'unix' ? unixAddress() : address));
    await using through = await relayed({ listen: from as string }, to);
    const { client, server: peer } = await through.open();
    peer.socket.pipe(peer.socket);
    const sent = randomBytes(8 * 2 ** 20);
    client.socket.end(sent);
    await client.ended.promise;
    expect(client.received.equals(sent)).toBe(true);
    expect(through.relay.getStatistics()).toMatchObject({
      accepted: 1,
      cut: 0,
      corrupted: 0,
      bytesToServer: sent.length,
      bytesToClient: sent.length,
    });
  });

  it('lets each side end on its own', async () => {
    await using through = await relayed();
    const { client, server } = await through.open();
    server.halfOpen = true;
    client.socket.end('question');
    await server.ended.promise;
    expect(server.received.toString()).toBe('question');
    server.socket.write('ans');
    expect((await client.bytes(3)).toString()).toBe('ans');
    server.socket.end('wer');
    await client.ended.promise;
    expect(client.received.toString()).toBe('answer');
    await Promise.all([client.closed.promise, server.closed.promise]);
    expect([client.log, server.log]).toEqual([[], []]);
    await vi.waitFor(() => expect(through.relay.getStatistics()).toMatchObject({ accepted: 1, open: 0, cut: 0 }));
  });

  it.each(['client', 'server'] as const)('hands on that the %s reset the connection', async (side) => {
    await using through = await relayed();
    const ends = await through.open();
    ends[side].socket.resetAndDestroy();
    const other = side === 'client' ? ends.server : ends.client;
    await other.closed.promise;
    expect(other.log).toEqual(['ECONNRESET']);
    await vi.waitFor(() => expect(through.relay.getStatistics()).toMatchObject({ open: 0, cut: 0 }));
  });

  it('resets a client whose server nobody is', async () => {
    await using relay = new FaultRelay(unixAddress());
    const port = Number((await relay.start()).split(':')[1]);
    const client = new Peer(connect(port, '127.0.0.1'));
    await client.closed.promise;
    expect(client.log).toEqual(['ECONNRESET']);
  });

  it('carries gRPC', async () => {
    await using pair = await loopback(echo);
    await using relay = new FaultRelay(`127.0.0.1:${pair.port}`, { listen: unixAddress(), delayMs: 1 });
    await using client = new GRPCComputeClient(await relay.start());
    const input = tensor(new Float32Array(100_000).fill(0.5));
    expect(await client.compute(input)).toEqual(input);
    expect(relay.getStatistics().bytesToServer).toBeGreaterThan(400_000);
  });
});

describe('set', () => {
  it('changes the delay and keeps the order', async () => {
    await using through = await relayed({ delayMs: 3 });
    const { client, server } = await through.open();
    let chunks = 0;
    server.socket.on('data', () => through.relay.set({ delayMs: [0, 2, 1, 5][chunks++ % 4] as number }));
    server.socket.pipe(server.socket);
    const sent = randomBytes(4 * 2 ** 20);
    client.socket.end(sent);
    await client.ended.promise;
    expect(client.received.equals(sent)).toBe(true);
  });

  it('stalls one direction, or both, and loses nothing', async () => {
    await using through = await relayed();
    const { client, server } = await through.open();
    through.relay.set({ stalled: true }, 'toClient');
    client.socket.write('question');
    await server.bytes(8);
    server.socket.end('answer');
    // A way there and back that is over proves that there was time enough.
    const second = await through.open();
    second.client.socket.write('x');
    await second.server.bytes(1);
    expect(client.received).toHaveLength(0);
    expect(through.relay.getStatistics()).toMatchObject({ open: 2, bytesToServer: 9, bytesToClient: 0 });
    through.relay.set({ stalled: false });
    await client.ended.promise;
    expect(client.received.toString()).toBe('answer');
  });

  it('draws where connections are cut, and the next ones work', async () => {
    let state = 7;
    const random = () => {
      state = (state * 48_271) % 2_147_483_647;
      return state / 2_147_483_647;
    };
    await using through = await relayed({ cutEveryBytes: 200_000, random });
    let unharmed = 0;
    for (let i = 0; i < 20; i++) {
      const { client, server } = await through.open();
      server.socket.pipe(server.socket);
      const sent = randomBytes(50_000);
      client.socket.end(sent);
      await client.closed.promise;
      if (client.received.equals(sent)) unharmed++;
    }
    const { cut } = through.relay.getStatistics();
    expect(cut).toBeGreaterThan(0);
    expect(unharmed).toBeGreaterThan(0);
    expect(unharmed).toBeGreaterThanOrEqual(20 - cut);
  });
});

describe('cut', () => {
  it('resets every connection in the middle of what it does', async () => {
    await using through = await relayed();
    const [first, second] = [await through.open(), await through.open()];
    const endless = randomBytes(64 * 2 ** 20);
    first.client.socket.write(endless);
    second.server.socket.write(endless);
    await Promise.all([first.server.bytes(1), second.client.bytes(1)]);
    through.relay.cut();
    await Promise.all([first, second].flatMap(({ client, server }) => [client.closed.promise, server.closed.promise]));
    expect(first.server.received.length).toBeLessThan(endless.length);
    expect(second.client.received.length).toBeLessThan(endless.length);
    await vi.waitFor(() => expect(through.relay.getStatistics()).toMatchObject({ accepted: 2, open: 0, cut: 2 }));
    const third = await through.open();
    third.client.socket.write('hello');
    expect((await third.server.bytes(5)).toString()).toBe('hello');
  });

  it('takes effect with everything under way, stalled or late', async () => {
    await using through = await relayed({ delayMs: 1_000_000 });
    const { client, server } = await through.open();
    client.socket.end('lost');
    through.relay.set({ stalled: true });
    through.relay.cut();
    await Promise.all([client.closed.promise, server.closed.promise]);
    expect(server.received).toHaveLength(0);
  });

  it('happens once after so many bytes, across connections', async () => {
    await using through = await relayed();
    const [first, second] = [await through.open(), await through.open()];
    through.relay.cutAfter(1_000, 'toServer');
    first.client.socket.write(Buffer.alloc(400));
    await first.server.bytes(400);
    second.client.socket.write(Buffer.alloc(10_000));
    await Promise.all([second.client.closed.promise, second.server.closed.promise]);
    expect(second.server.received.length).toBeLessThanOrEqual(600);
    expect(second.client.log).toEqual(['ECONNRESET']);
    first.client.socket.write(Buffer.alloc(10_000));
    expect(await first.server.bytes(10_400)).toHaveLength(10_400);
    expect(through.relay.getStatistics()).toMatchObject({ cut: 1, bytesToServer: 11_000 });
  });

  it('makes a call fail, but not the one after', async () => {
    await using pair = await loopback(echo);
    await using relay = new FaultRelay(`127.0.0.1:${pair.port}`);
    await using client = new GRPCComputeClient(await relay.start());
    const input = tensor(new Float32Array(100_000));
    await client.compute(input);
    relay.cutAfter(100_000, 'toClient');
    expect(await rejection(client.compute(input))).toMatchObject({ code: 'UNAVAILABLE', retryable: true });
    expect(await client.compute(input)).toEqual(input);
    expect(relay.getStatistics()).toMatchObject({ accepted: 2, cut: 1 });
  });
});

it('flips one byte, and only that', async () => {
  await using through = await relayed();
  const { client, server } = await through.open();
  const sent = randomBytes(2 ** 20);
  const expected = Buffer.from(sent);
  expected[600_000] = ~(expected[600_000] as number);
  through.relay.corruptAfter(600_000, 'toServer');
  client.socket.end(sent);
  await server.ended.promise;
  expect(server.received.equals(expected)).toBe(true);
  expect(through.relay.getStatistics()).toMatchObject({ corrupted: 1 });
});

it('loses open connections without a word, and lets new ones through', async () => {
  await using through = await relayed();
  const { client, server } = await through.open();
  client.socket.write('before');
  await server.bytes(6);
  through.relay.blackHole();
  client.socket.end('after');
  server.socket.write('after');
  const next = await through.open();
  next.client.socket.end('hello');
  await next.server.ended.promise;
  next.server.socket.end('hello');
  await next.client.ended.promise;
  expect(server.received.toString()).toBe('before');
  expect(client.received).toHaveLength(0);
  await vi.waitFor(() => expect(through.relay.getStatistics()).toMatchObject({ accepted: 2, open: 1, cut: 0 }));
});

it('refuses new connections for as long as it is told to', async () => {
  await using through = await relayed();
  const { client, server } = await through.open();
  through.relay.refusing = true;
  const refused = through.dial();
  await refused.closed.promise;
  expect(refused.log).toEqual(['ECONNRESET']);
  client.socket.write('still here');
  await server.bytes(10);
  through.relay.refusing = false;
  await through.open();
  expect(through.relay.getStatistics()).toMatchObject({ accepted: 2, refused: 1, open: 2 });
});

describe('start', () => {
  it.each(['127.0.0.1:0', '[::1]:0'])('listens on %s', async (listen) => {
    await using relay = new FaultRelay(unixAddress(), { listen });
    const [address, again] = await Promise.all([relay.start(), relay.start()]);
    expect(address).toMatch(new RegExp(`^${listen.slice(0, -1).replace(/[[\]]/g, '\\$&')}[1-9]\\d+$`));
    expect(again).toBe(address);
  });

  it('fails where somebody else listens', async () => {
    await using first = new FaultRelay(unixAddress());
    await using second = new FaultRelay(unixAddress(), { listen: await first.start() });
    expect(await rejection(second.start())).toMatchObject({ code: 'EADDRINUSE' });
  });

  it('fails after close', async () => {
    const relay = new FaultRelay(unixAddress());
    await relay.close();
    expect(await rejection(relay.start())).toMatchObject({ code: 'FAILED_PRECONDITION' });
  });
});

describe('close', () => {
  it('leaves nothing behind, or this program would not end by itself', async () => {
    const program = `
      import { connect, createServer } from 'node:net';
      import { once } from 'node:events';
      import { FaultRelay } from '@splitlearn/comm/testing';

      const server = createServer((socket) => socket.on('error', () => {}).resume());
      await once(server.listen(0, '127.0.0.1'), 'listening');
      for (const conditions of [{}, { delayMs: 1e6 }, { bytesPerSecond: 1 }, { stalled: true }]) {
        const relay = new FaultRelay('127.0.0.1:' + server.address().port);
        const port = (await relay.start()).split(':')[1];
        const open = async () => {
          const client = connect(port, '127.0.0.1').on('error', () => {});
          await once(server, 'connection');
          return client;
        };
        const lost = await open();
        relay.blackHole();
        relay.set(conditions);
        const client = await open();
        for (const socket of [lost, client]) socket.write(Buffer.alloc(1e6));
        await Promise.all([relay.close(), relay.close()]);
        console.log(relay.getStatistics().open);
      }
      server.close();`;
    const args = ['--input-type=module', '--eval', program];
    const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { cwd: import.meta.dirname });
    expect([stdout, stderr]).toEqual(['0\n'.repeat(4), '']);
  });

  it('takes its unix socket away', async () => {
    const listen = unixAddress();
    const path = listen.slice('unix:'.length);
    const relay = new FaultRelay(unixAddress(), { listen });
    expect(await relay.start()).toBe(listen);
    expect(existsSync(path)).toBe(true);
    await relay.close();
    expect(existsSync(path)).toBe(false);
  });

  it('ends what has not begun to listen', async () => {
    const relay = new FaultRelay(unixAddress(), { listen: unixAddress() });
    const started = relay.start();
    await relay.close();
    await started;
  });

  it('does not wait for a server that does not answer', async () => {
    // Nobody is there: addresses of this range are for documentation.
    await using relay = new FaultRelay('192.0.2.1:9');
    const port = Number((await relay.start()).split(':')[1]);
    const client = new Peer(connect(port, '127.0.0.1'));
    client.socket.write('x');
    await vi.waitFor(() => expect(relay.getStatistics().accepted).toBe(1));
    await relay.close();
    await client.closed.promise;
  });
});
