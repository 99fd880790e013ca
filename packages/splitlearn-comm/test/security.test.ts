import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { Metadata } from '@grpc/grpc-js';
import {
  AsyncGRPCComputeServer,
  type AsyncGRPCComputeServerOptions,
  type AuthorizedCall,
  CommError,
  type ComputeFunction,
  GRPCComputeClient,
  type GRPCComputeClientOptions,
  tensor,
} from '@splitlearn/comm';
import { afterEach, describe, expect, it } from 'vitest';
import { collect, deferred, rejection } from './support/deferred.js';
import { echo, RecordingLogger, requestsOf } from './support/functions.js';
import { RawClient } from './support/raw-client.js';

const pem = (name: string) => readFileSync(new URL(`./fixtures/tls/${name}`, import.meta.url));
const serverTls = { cert: pem('server.pem'), key: pem('server.key') };
const clientTls = { ca: pem('ca.pem'), serverName: 'localhost' };
const input = { x: tensor([1, 2]) };

const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function serve(options: Partial<AsyncGRPCComputeServerOptions> = {}) {
  const logger = new RecordingLogger();
  const server = new AsyncGRPCComputeServer({ computeFn: echo, port: 0, logger, ...options });
  const port = await server.start();
  closing.push(() => server.stop({ graceMs: 0 }));
  const client = (clientOptions: GRPCComputeClientOptions = {}) => {
    const made = new GRPCComputeClient(`127.0.0.1:${port}`, clientOptions);
    closing.push(() => made.close());
    return made;
  };
  return { server, port, logger, client };
}

const ways = [
  { way: 'Exchange', exchange: true },
  { way: 'a gRPC call each', exchange: false },
];

/** A call, a session, and what is served. */
const calls: [string, (client: GRPCComputeClient, metadata?: Record<string, string>) => Promise<unknown>][] = [
  ['compute', (client, metadata = {}) => client.compute(input, { metadata })],
  ['stream', (client, metadata = {}) => collect(client.stream(requestsOf(input, input), { metadata }))],
  ['info', (client, metadata = {}) => client.getServiceInfo({ metadata })],
];

describe.each(ways)('TLS, over $way', ({ exchange }) => {
  it('carries calls, sessions and all else', async () => {
    const { client } = await serve({ tls: serverTls });
    const made = client({ exchange, tls: clientTls });
    expect(await made.compute(input)).toEqual(input);
    expect(await collect(made.stream(requestsOf(input, input)))).toHaveLength(2);
    expect(await made.healthCheck()).toBe('SERVING');
    expect((await made.getServiceInfo()).name).toBe('@splitlearn/comm');
  });

  it.each<[string, GRPCComputeClientOptions]>([
    ['that trusts another authority', { tls: { ...clientTls, ca: pem('other-ca.pem') } }],
    ['that trusts only public ones', { tls: { serverName: 'localhost' } }],
    ['that expects another server', { tls: { ...clientTls, serverName: 'gpu.example' } }],
    ['that speaks in the clear', {}],
  ])('keeps a client out %s, and nothing was sent', async (_, options) => {
    let computed = 0;
    const counting: ComputeFunction = {
      async compute({ inputs }) {
        computed++;
        return { outputs: inputs };
      },
    };
    const { client } = await serve({ tls: serverTls, computeFn: counting });
    expect(await rejection(client({ exchange, ...options }).compute(input))).toMatchObject({ code: 'UNAVAILABLE' });
    expect(computed).toBe(0);
    expect(await client({ exchange, tls: clientTls }).compute(input)).toEqual(input);
  });

  it('asks clients for a certificate where it is mutual, and says who they are', async () => {
    const asked: AuthorizedCall[] = [];
    const authorize = (call: AuthorizedCall) => void asked.push(call);
    const { client } = await serve({ tls: { ...serverTls, clientCa: pem('ca.pem') }, auth: { authorize } });
    const own = { cert: pem('client.pem'), key: pem('client.key') };
    const other = { cert: pem('other-client.pem'), key: pem('other-client.key') };
    for (const tls of [clientTls, { ...clientTls, ...other }]) {
      expect(await rejection(client({ exchange, tls }).compute(input))).toMatchObject({ code: 'UNAVAILABLE' });
    }
    expect(asked).toEqual([]);
    expect(await client({ exchange, tls: { ...clientTls, ...own } }).compute(input)).toEqual(input);
    expect(asked.map(({ certificate }) => certificate?.subject.CN)).toEqual(['test client']);
  });
});

describe.each(ways)('a token, over $way', ({ exchange }) => {
  const auth = { tokens: ['old-secret', 'new-secret'] };

  it.each(calls)('is asked for by %s', async (_, call) => {
    const { client } = await serve({ auth });
    for (const token of [undefined, 'wrong', 'old']) {
      const options = token === undefined ? { exchange } : { exchange, token };
      expect(await rejection(call(client(options)))).toMatchObject({
        code: 'UNAUTHENTICATED',
        message: expect.stringContaining('this server asks for a token'),
      });
    }
    for (const token of auth.tokens) expect(await call(client({ exchange, token }))).toBeDefined();
  });

  it('of a call is worth more than that of its connection', async () => {
    const { client } = await serve({ auth });
    for (const [, call] of calls) {
      expect(await call(client({ exchange }), { authorization: 'Bearer new-secret' })).toBeDefined();
      const made = client({ exchange, token: 'old-secret' });
      expect(await rejection(call(made, { authorization: 'Bearer wrong' }))).toMatchObject({ code: 'UNAUTHENTICATED' });
      expect(await call(made)).toBeDefined();
    }
  });

  it('is not asked for by health checks', async () => {
    const { client } = await serve({ auth });
    expect(await client({ exchange }).healthCheck()).toBe('SERVING');
  });

  it('lets encodings be agreed on', async () => {
    const { client, server } = await serve({ auth });
    const zeros = { x: tensor(new Float32Array(10_000)) };
    expect(await client({ exchange, token: 'old-secret', encoding: 'gzip' }).compute(zeros)).toEqual(zeros);
    expect(server.getStatistics().bytesReceived).toBeLessThan(5_000);
    const stranger = client({ exchange, encoding: 'gzip' });
    expect(await rejection(stranger.compute(zeros))).toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  it('is not in what the compute function’s caller is told, nor in the log', async () => {
    const { client, logger } = await serve({ auth });
    const error = (await rejection(client({ exchange, token: 'almost-secret' }).compute(input))) as CommError;
    expect(error.message).not.toContain('secret');
    expect(logger.lines).toEqual([]);
  });
});

describe.each(ways)('authorize, over $way', ({ exchange }) => {
  it('is asked once for each call, of what kind it is, by whom, and what it sends along', async () => {
    const asked: AuthorizedCall[] = [];
    const { client } = await serve({ auth: { authorize: (call) => void asked.push(call) } });
    const made = client({ exchange, token: 'mine' });
    for (const [, call] of calls) await call(made, { 'x-tenant': 'a' });
    await made.compute(input);
    const metadata = { 'x-tenant': 'a', authorization: 'Bearer mine' };
    const peer = expect.stringMatching(/^127\.0\.0\.1:\d+$/);
    expect(asked).toEqual([
      expect.objectContaining({ method: 'compute', metadata, peer }),
      expect.objectContaining({ method: 'stream', metadata, peer }),
      expect.objectContaining({ method: 'info', metadata, peer }),
      expect.objectContaining({ method: 'compute', metadata: { authorization: 'Bearer mine' }, peer }),
    ]);
  });

  it.each(calls)('refuses %s by throwing, now or later, and the others go on', async (_, call) => {
    let computed = 0;
    const computeFn: ComputeFunction = {
      async compute({ inputs }) {
        computed++;
        return { outputs: inputs };
      },
    };
    const authorize = ({ metadata }: AuthorizedCall) => {
      const error = new CommError('RESOURCE_EXHAUSTED', 'no calls left', { reason: 'QUOTA', retryAfterMs: 5 });
      if (metadata['x-tenant'] === 'now') throw error;
      return metadata['x-tenant'] === 'later' ? Promise.reject(error) : undefined;
    };
    const { client, logger } = await serve({ computeFn, auth: { authorize } });
    const made = client({ exchange });
    for (const tenant of ['now', 'later', 'now']) {
      expect(await rejection(call(made, { 'x-tenant': tenant }))).toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
        message: 'no calls left',
        reason: 'QUOTA',
        retryAfterMs: 5,
      });
    }
    expect(computed).toBe(0);
    expect(await call(made)).toBeDefined();
    expect(logger.lines).toEqual([]);
  });

  it.each(calls)('that fails refuses %s, says no more, and is logged', async (_, call) => {
    const authorize = async () => {
      throw new Error('password = 1234');
    };
    const { client, logger } = await serve({ auth: { authorize } });
    expect(await rejection(call(client({ exchange })))).toMatchObject({
      code: 'PERMISSION_DENIED',
      message: 'this server does not allow the call',
    });
    expect(logger.lines).toEqual([expect.stringContaining('password = 1234')]);
  });

  it('that takes its time holds up its own call only', async () => {
    const asked = deferred();
    const answer = deferred();
    const authorize = async ({ metadata }: AuthorizedCall) => {
      if (!metadata['x-slow']) return;
      asked.resolve();
      await answer.promise;
    };
    const { client } = await serve({ auth: { authorize } });
    const made = client({ exchange });
    const slow = made.compute(input, { metadata: { 'x-slow': '1' } });
    await asked.promise;
    expect(await made.compute(input)).toEqual(input);
    answer.resolve();
    expect(await slow).toEqual(input);
  });

  it('that never answers is over with its caller', async () => {
    const asked = deferred();
    const authorize = () => {
      asked.resolve();
      return new Promise<void>(() => {});
    };
    const { client } = await serve({ auth: { authorize } });
    const controller = new AbortController();
    const call = rejection(client({ exchange }).compute(input, { signal: controller.signal }));
    await asked.promise;
    controller.abort();
    expect(await call).toMatchObject({ code: 'CANCELLED' });
  });

  it('comes before what is in the request', async () => {
    const authorize = () => {
      throw new CommError('PERMISSION_DENIED', 'no');
    };
    const { port } = await serve({ auth: { authorize } });
    await using raw = new RawClient(`127.0.0.1:${port}`);
    expect(await raw.unary('Compute', Buffer.from('no protobuf'))).toMatchObject({
      code: 'PERMISSION_DENIED',
      details: 'no',
    });
  });
});

describe('a server beyond this machine', () => {
  const everywhere = { host: '0.0.0.0' };

  it('warns once where anyone may call and listen', async () => {
    const { logger, client } = await serve(everywhere);
    const made = client();
    await made.compute(input);
    await made.compute(input);
    expect(logger.lines).toEqual([
      expect.stringMatching(
        /^the server listens on 0\.0\.0\.0, beyond this machine: anyone .*, and what .*; or listen on 127\.0\.0\.1$/,
      ),
    ]);
  });

  it('says what is missing', async () => {
    const { logger } = await serve({ ...everywhere, tls: serverTls });
    expect(logger.lines).toEqual([expect.stringContaining('give auth.tokens')]);
    expect(logger.lines[0]).not.toContain('give tls)');
  });

  it.each<[string, Partial<AsyncGRPCComputeServerOptions>]>([
    ['with TLS and tokens', { ...everywhere, tls: serverTls, auth: { tokens: ['secret'] } }],
    ['with mutual TLS', { ...everywhere, tls: { ...serverTls, clientCa: pem('ca.pem') } }],
    ['on this machine only', {}],
    ['on localhost', { host: 'localhost' }],
  ])('%s is silent', async (_, options) => {
    const { logger } = await serve(options);
    expect(logger.lines).toEqual([]);
  });
});

describe('limits', () => {
  it('of connections: further ones are closed as they come, and make room when they go', async () => {
    const { port, server, client } = await serve({ limits: { maxConnections: 2 } });
    const sockets: Socket[] = [];
    const open = async () => {
      const socket = connect(port, '127.0.0.1');
      sockets.push(socket);
      const closed = new Promise<string>((resolve) =>
        socket.on('error', () => {}).on('close', () => resolve('closed')),
      );
      // The server's settings come at once to whoever is let in.
      const opened = new Promise<string>((resolve) => socket.once('data', () => resolve('open')));
      return Promise.race([opened, closed]);
    };
    expect([await open(), await open(), await open()]).toEqual(['open', 'open', 'closed']);
    expect(server.getConnectionStatistics()).toMatchObject({ connections: 2, refused: 1 });
    for (const socket of sockets) socket.destroy();
    const made = client({ connectTimeoutMs: Number.POSITIVE_INFINITY });
    // Until the server has noticed, connections are refused, and grpc-js tries again.
    await made.connect({ timeoutMs: 30_000 });
    expect(await made.compute(input)).toEqual(input);
  });

  it.each(ways)(
    'of metadata, over $way: the call is refused with both sizes, and the next one is not',
    async ({ exchange }) => {
      const { client } = await serve({ limits: { maxMetadataBytes: 1024 } });
      const made = client({ exchange });
      for (const [, call] of calls) {
        expect(await rejection(call(made, { 'x-large': 'x'.repeat(1_000) }))).toMatchObject({
          code: 'RESOURCE_EXHAUSTED',
          reason: 'METADATA_TOO_LARGE',
          message: expect.stringMatching(
            /^the call has 1039 bytes of metadata, more than maxMetadataBytes allows \(1024\)/,
          ),
        });
        expect(await call(made, { 'x-large': 'x'.repeat(900) })).toBeDefined();
      }
    },
  );

  it('of metadata hold for clients of other makes', async () => {
    const { port } = await serve({ limits: { maxMetadataBytes: 1024 } });
    await using raw = new RawClient(`127.0.0.1:${port}`);
    const metadata = new Metadata();
    metadata.set('x-large', 'x'.repeat(1_000));
    expect(await raw.unary('Compute', new Uint8Array(), metadata)).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
    expect(await raw.unary('Compute', new Uint8Array())).toMatchObject({ code: 'OK' });
  });

  it('of calls on one connection: more are told to come back', async () => {
    const begun = [deferred(), deferred()];
    const answer = deferred();
    let count = 0;
    const waiting: ComputeFunction = {
      async compute({ inputs }) {
        begun[count++]?.resolve();
        await answer.promise;
        return { outputs: inputs };
      },
    };
    const { client } = await serve({ computeFn: waiting, limits: { maxCallsPerConnection: 2 } });
    const [made, other] = [client(), client()];
    const two = [made.compute(input), made.compute(input)];
    await Promise.all(begun.map(({ promise }) => promise));
    expect(await rejection(made.compute(input))).toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      reason: 'TOO_MANY_CALLS',
      retryable: true,
    });
    expect(await rejection(collect(made.stream(requestsOf(input))))).toMatchObject({ reason: 'TOO_MANY_CALLS' });
    answer.resolve();
    expect(await Promise.all(two)).toEqual([input, input]);
    expect(await made.compute(input)).toEqual(input);
    expect(await other.compute(input)).toEqual(input);
  });

  it.each<[string, object]>([
    ['maxConnections', { maxConnections: 0 }],
    ['maxMetadataBytes', { maxMetadataBytes: 100 }],
    ['maxCallsPerConnection', { maxCallsPerConnection: 0.5 }],
    ['maxRequestBytes', { maxRequestBytes: -1 }],
    ['slowPeerTimeoutMs', { slowPeerTimeoutMs: 0 }],
    ['handshakeTimeoutMs', { handshakeTimeoutMs: Number.NaN }],
    ['keepAliveMs', { keepAliveMs: -1 }],
  ])('that are none are refused: %s', (option, limits) => {
    expect(() => new AsyncGRPCComputeServer({ computeFn: echo, limits })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(option) }),
    );
  });
});
