import { readFileSync } from 'node:fs';
import {
  AsyncGRPCComputeServer,
  FixedDelay,
  GRPCComputeClient,
  type GRPCComputeClientOptions,
  tensor,
} from '@splitlearn/comm';
import { afterEach, describe, expect, it } from 'vitest';
import { collect, rejection } from './support/deferred.js';
import { requestThenSilence, valueAt } from './support/functions.js';

const pem = (name: string) => readFileSync(new URL(`./fixtures/tls/${name}`, import.meta.url));
const tls = { cert: pem('server.pem'), key: pem('server.key') };
const input = { x: tensor([1]) };

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A server that answers with its number. */
async function serve(number: number, options: { port?: number; host?: string; tls?: typeof tls } = {}) {
  const counts = { calls: 0 };
  const server = new AsyncGRPCComputeServer({
    computeFn: {
      async compute() {
        counts.calls++;
        return { outputs: { number: tensor([number]) } };
      },
    },
    port: 0,
    ...options,
  });
  const port = await server.start();
  closing.push(() => server.stop({ graceMs: 0 }));
  return { server, port, counts, address: `127.0.0.1:${port}` };
}

function connect(addresses: string | readonly string[], options: GRPCComputeClientOptions = {}) {
  const client = new GRPCComputeClient(addresses, options);
  closing.push(() => client.close());
  return client;
}

/** Who answers so many calls, made one after the other. */
async function answerers(client: GRPCComputeClient, calls: number): Promise<Set<number>> {
  const numbers = new Set<number>();
  for (let call = 0; call < calls; call++) numbers.add(valueAt(await client.compute(input), 'number'));
  return numbers;
}

describe.each([
  ['Exchange', true],
  ['a gRPC call each', false],
])('several servers, over %s', (_, exchange) => {
  it.each(['least-outstanding', 'round-robin'] as const)('share the calls, %s', async (balancing) => {
    const servers = [await serve(0), await serve(1), await serve(2)];
    const client = connect(
      servers.map(({ address }) => address),
      { exchange, balancing },
    );
    for (let call = 0; call < 30; call++) await client.compute(input);
    expect(servers.map(({ counts }) => counts.calls)).toEqual([10, 10, 10]);
    for (let burst = 0; burst < 3; burst++) {
      await Promise.all(Array.from({ length: 30 }, () => client.compute(input)));
    }
    expect(servers.map(({ counts }) => counts.calls)).toEqual([40, 40, 40]);
  });

  it('share the sessions as well, and one stays where it is', async () => {
    const servers = [await serve(0), await serve(1)];
    const client = connect(
      servers.map(({ address }) => address),
      { exchange },
    );
    for (let session = 0; session < 4; session++) {
      const answers = await collect(client.stream([{ inputs: input }, { inputs: input }, { inputs: input }]));
      expect(new Set(answers.map(({ outputs }) => valueAt(outputs, 'number'))).size).toBe(1);
    }
    expect(servers.map(({ counts }) => counts.calls)).toEqual([6, 6]);
  });

  it('go on without one that stops; a client that retries notices nothing', async () => {
    const servers = [await serve(0), await serve(1)];
    const client = connect(
      servers.map(({ address }) => address),
      { exchange, retry: new FixedDelay({ maxAttempts: 5, delayMs: 0 }) },
    );
    expect(await answerers(client, 4)).toEqual(new Set([0, 1]));
    let stopped = false;
    const callOn = async () => {
      for (let call = 0; !stopped || call < 50; call++) await client.compute(input, { idempotent: true });
    };
    const calls = Promise.all([callOn(), callOn(), callOn(), callOn()]);
    await servers[0]?.server.stop();
    stopped = true;
    await calls;
    expect(client.getStatistics().failed).toEqual({});
    expect(await answerers(client, 6)).toEqual(new Set([1]));
  });

  it('use one again that is back', async () => {
    const [first, second] = [await serve(0), await serve(1)];
    const client = connect([first.address, second.address], {
      exchange,
      retry: new FixedDelay({ maxAttempts: 5, delayMs: 0 }),
    });
    expect(await answerers(client, 4)).toEqual(new Set([0, 1]));
    await first.server.stop({ graceMs: 0 });
    expect(await answerers(client, 6)).toEqual(new Set([1]));
    const again = await serve(2, { port: first.port });
    // However long it takes until it is asked again: vitest's own limit ends this where it never is.
    while (again.counts.calls === 0) await client.compute(input);
    expect(await answerers(client, 4)).toEqual(new Set([1, 2]));
  });

  it('go on without one that was never there', async () => {
    const lost = await serve(0);
    await lost.server.stop({ graceMs: 0 });
    const { address } = await serve(1);
    const client = connect([lost.address, address], { exchange, retry: new FixedDelay({ delayMs: 0 }) });
    expect(await answerers(client, 6)).toEqual(new Set([1]));
    expect(client.getStatistics().failed).toEqual({});
  });

  it('that are all gone are UNAVAILABLE, and nothing has begun', async () => {
    const servers = [await serve(0), await serve(1)];
    for (const { server } of servers) await server.stop({ graceMs: 0 });
    const client = connect(
      servers.map(({ address }) => address),
      { exchange },
    );
    for (let call = 0; call < 4; call++) {
      expect(await rejection(client.compute(input))).toMatchObject({ code: 'UNAVAILABLE', reason: 'NOT_SENT' });
    }
    const back = await serve(2, { port: servers[1]?.port as number });
    while (back.counts.calls === 0) {
      await client.compute(input).catch(() => {});
      // What fails at once must not keep everything else from happening.
      await new Promise((resolve) => setImmediate(resolve));
    }
  });

  it('are left by sessions too: the next one begins elsewhere', async () => {
    const [first, second] = [await serve(0), await serve(1)];
    const client = connect([first.address, second.address], { exchange, balancing: 'round-robin' });
    await client.compute(input);
    await client.compute(input);
    const session = client.stream(requestThenSilence(input));
    const { value } = await session.next();
    const [here, there] = valueAt(value?.outputs ?? {}, 'number') === 0 ? [first, second] : [second, first];
    const failed = rejection(session.next());
    await here.server.stop({ graceMs: 0 });
    expect(await failed).toMatchObject({ code: 'UNAVAILABLE', reason: 'STOPPING' });
    const before = there.counts.calls;
    await client.compute(input);
    await client.compute(input);
    expect(there.counts.calls).toBe(before + 2);
  });

  it('close with their client', async () => {
    const servers = [await serve(0), await serve(1)];
    const client = connect(
      servers.map(({ address }) => address),
      { exchange },
    );
    await answerers(client, 2);
    await client.close();
    expect(await rejection(client.compute(input))).toMatchObject({ code: 'FAILED_PRECONDITION' });
    await Promise.all(servers.map(({ server }) => server.stop()));
    expect(servers.map(({ server }) => server.getConnectionStatistics().connections)).toEqual([0, 0]);
  });
});

describe('a name', () => {
  it('stands for the servers that it is looked up to', async () => {
    const { port } = await serve(7);
    const client = connect(`dns:///localhost:${port}`, { retry: new FixedDelay({ maxAttempts: 5, delayMs: 0 }) });
    expect(await answerers(client, 3)).toEqual(new Set([7]));
    expect((await client.getServiceInfo()).name).toBe('@splitlearn/comm');
    expect(await client.healthCheck()).toBe('SERVING');
  });

  it('is the one that a certificate has to be for', async () => {
    const { port } = await serve(7, { tls });
    const retry = new FixedDelay({ maxAttempts: 5, delayMs: 0 });
    const client = connect(`dns:///localhost:${port}`, { tls: { ca: pem('ca.pem') }, retry });
    expect(await answerers(client, 3)).toEqual(new Set([7]));
    const other = connect(`dns:///localhost:${port}`, { tls: { ca: pem('ca.pem'), serverName: 'gpu.example' } });
    expect(await rejection(other.compute(input))).toMatchObject({ code: 'UNAVAILABLE', reason: 'NOT_SENT' });
  });

  it('that is none is UNAVAILABLE, and nothing was sent', async () => {
    // Too long for a label of a name: nobody is asked.
    const client = connect(`dns:///${'x'.repeat(70)}.invalid:1`);
    for (let call = 0; call < 2; call++) {
      expect(await rejection(client.compute(input))).toMatchObject({
        code: 'UNAVAILABLE',
        reason: 'NOT_SENT',
        message: expect.stringContaining('cannot be looked up'),
      });
    }
  });
});

describe('a client cannot be made with', () => {
  it.each<[string, unknown]>([
    ['no address', []],
    ['what is no address', ['127.0.0.1:1', 'localhost']],
    ['a name without a port', 'dns:///localhost'],
    ['another name service', 'dns://8.8.8.8/localhost:1'],
    ['nothing', undefined],
    ['a number', 50051],
  ])('%s', (_, addresses) => {
    expect(() => new GRPCComputeClient(addresses as string)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });

  it('a wrong certificate, also for a name that is looked up later', () => {
    expect(() => new GRPCComputeClient('dns:///localhost:1', { tls: { ca: 'ca.pem' } })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT' }),
    );
  });
});
