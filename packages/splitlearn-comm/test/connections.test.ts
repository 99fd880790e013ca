import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, type ClientHttp2Stream, connect as http2Connect } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { serverCredentials } from '../src/grpc/tls.js';
import { ConnectionGuard, type ConnectionLimits } from '../src/server/connections.js';
import { deferred } from './support/deferred.js';
import { RecordingLogger } from './support/functions.js';
import { FRAME, frame, Http2Peer, PREFACE } from './support/http2-peer.js';

// The guard of a grpc-js server, over real sockets. Only its clock is the test's.

const SERVICE = '/splitlearn.comm.v1.ComputeService';
const TIMEOUT_MS = 1_000;
const SWEEP_MS = TIMEOUT_MS / 4;
const MIB = 2 ** 20;
const tlsFile = (name: string) => readFileSync(new URL(`./fixtures/tls/${name}`, import.meta.url));
const tls = serverCredentials({ cert: tlsFile('server.pem'), key: tlsFile('server.key') });

type Unary = (call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>) => void;
type Session = (call: ServerDuplexStream<Buffer, Buffer>) => void;

function method(name: string, streaming: boolean) {
  const keep = (bytes: Buffer) => bytes;
  return {
    path: `${SERVICE}/${name}`,
    requestStream: streaming,
    responseStream: streaming,
    requestSerialize: keep,
    requestDeserialize: keep,
    responseSerialize: keep,
    responseDeserialize: keep,
  };
}

const closing: (() => void)[] = [];

interface Options extends ConnectionLimits {
  readonly compute?: Unary;
  readonly session?: Session;
  readonly credentials?: ServerCredentials;
}

async function serve(options: Options = {}) {
  const { compute, session, credentials = ServerCredentials.createInsecure(), ...limits } = options;
  const logger = new RecordingLogger();
  const guard = new ConnectionGuard(
    {
      handshakeTimeoutMs: TIMEOUT_MS,
      slowPeerTimeoutMs: TIMEOUT_MS,
      silentPeerTimeoutMs: Number.POSITIVE_INFINITY,
      ...limits,
    },
    logger,
  );
  const server = new Server(guard.channelOptions);
  const unary: Unary = compute ?? ((call, callback) => callback(null, call.request));
  const echo: Session =
    session ?? ((call) => void call.on('data', (bytes) => call.write(bytes)).on('end', () => call.end()));
  server.addService(
    {
      Compute: method('Compute', false),
      ComputeStream: method('ComputeStream', true),
      Exchange: method('Exchange', true),
    },
    { Compute: unary, ComputeStream: echo, Exchange: echo },
  );
  const bind = () =>
    new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', credentials, (error, port) => (error ? reject(error) : resolve(port))),
    );
  const port = await bind();
  const otherPort = await bind();
  guard.watch(server);
  expect(logger.lines).toEqual([]);
  closing.push(() => {
    server.forceShutdown();
    guard.destroyAll();
  });
  return { guard, server, port, otherPort };
}

function open(port: number): Socket {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {}).resume();
  closing.push(() => socket.destroy());
  return socket;
}

/** A connection that has shaken hands. */
async function http2(port: number, secure = false): Promise<ClientHttp2Session> {
  const session = secure
    ? http2Connect(`https://localhost:${port}`, { ca: tlsFile('ca.pem') })
    : http2Connect(`http://127.0.0.1:${port}`, { maxSendHeaderBlockLength: 2 ** 20 });
  session.on('error', () => {});
  closing.push(() => session.destroy());
  await once(session, 'remoteSettings');
  await settled(session);
  return session;
}

interface Call {
  readonly stream: ClientHttp2Stream;
  /** The status of the call when it is answered, or the HTTP/2 error code that it was reset with. */
  readonly outcome: Promise<{
    readonly status?: string;
    readonly message?: string;
    readonly reason?: string;
    readonly reset: number;
  }>;
}

function call(session: ClientHttp2Session, name: string, headers: Record<string, string> = {}): Call {
  const stream = session.request(
    {
      ':method': 'POST',
      ':path': `${SERVICE}/${name}`,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    },
    { endStream: false },
  );
  stream.on('error', () => {});
  let status: Record<string, unknown> = {};
  const look = (received: Record<string, unknown>) => {
    if ('grpc-status' in received) status = received;
  };
  stream.on('response', look).on('trailers', look);
  const outcome = new Promise<void>((resolve) => stream.on('close', resolve)).then(() => ({
    ...('grpc-status' in status && {
      status: String(status['grpc-status']),
      message: decodeURI(String(status['grpc-message'])),
      reason: String(status['splitlearn-reason']),
    }),
    reset: stream.rstCode,
  }));
  return { stream, outcome };
}

/** Everything that was sent before has been dealt with on the other side, and its answer is here. */
async function settled(session: ClientHttp2Session): Promise<void> {
  await new Promise<void>((resolve, reject) => session.ping((error) => (error ? reject(error) : resolve())));
}

function message(bytes: number): Buffer {
  const framed = Buffer.alloc(5 + bytes, 7);
  framed[0] = 0;
  framed.writeUInt32BE(bytes, 1);
  return framed;
}

function sendForEver(session: ServerDuplexStream<Buffer, Buffer>, bytes: Buffer): void {
  const next = (error?: Error | null) => {
    if (!error) session.write(bytes, next);
  };
  next();
}

function sweep(times = 1): void {
  vi.advanceTimersByTime(SWEEP_MS * times);
}

beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] }));
afterEach(() => {
  for (const close of closing.splice(0)) close();
  vi.useRealTimers();
});

describe('maxConnections', () => {
  it('closes further connections as they come, and takes new ones when others have left', async () => {
    const { guard, port, otherPort } = await serve({ maxConnections: 2 });
    const first = await http2(port);
    await http2(otherPort);
    for (const one of [port, otherPort]) await once(open(one), 'close');
    expect(guard.getStatistics()).toMatchObject({ connections: 2, refused: 2 });
    first.destroy();
    await vi.waitUntil(() => guard.getStatistics().connections === 1, { interval: 1 });
    await http2(otherPort);
    await once(open(port), 'close');
    expect(guard.getStatistics()).toEqual({
      connections: 2,
      refused: 3,
      handshakeTimeouts: 0,
      slowPeers: 0,
      silentPeers: 0,
    });
  });

  it('holds for a listener that has no connection yet', async () => {
    const { guard, port, otherPort } = await serve({ maxConnections: 1 });
    await http2(port);
    await once(open(otherPort), 'close');
    expect(guard.getStatistics()).toMatchObject({ connections: 1, refused: 1 });
  });

  it('counts connections over TLS until they are gone', async () => {
    const { guard, port } = await serve({ maxConnections: 1, credentials: tls });
    const session = await http2(port, true);
    await once(open(port), 'close');
    expect(guard.getStatistics()).toMatchObject({ connections: 1, refused: 1 });
    session.destroy();
    await vi.waitUntil(() => guard.getStatistics().connections === 0, { interval: 1 });
  });
});

describe('handshakeTimeoutMs', () => {
  async function accepted(guard: ConnectionGuard, connections = 1): Promise<void> {
    await vi.waitUntil(() => guard.getStatistics().connections === connections, { interval: 1 });
  }

  it.each<[string, string]>([
    ['says nothing', ''],
    ['begins to speak HTTP/2 and stops', PREFACE.slice(0, 10)],
    ['has no settings', PREFACE],
  ])('closes a connection that %s, and not before its time', async (_, bytes) => {
    const { guard, port } = await serve();
    const socket = open(port);
    socket.write(bytes);
    await accepted(guard);
    sweep(4);
    expect(guard.getStatistics()).toMatchObject({ connections: 1, handshakeTimeouts: 0 });
    sweep();
    await once(socket, 'close');
    await accepted(guard, 0);
    expect(guard.getStatistics()).toMatchObject({ handshakeTimeouts: 1 });
  });

  it('closes a connection that does not begin TLS', async () => {
    const { guard, port } = await serve({ credentials: tls });
    const socket = open(port);
    await accepted(guard);
    sweep(5);
    await once(socket, 'close');
    expect(guard.getStatistics()).toMatchObject({ handshakeTimeouts: 1 });
  });

  it('closes a connection that has TLS and does not begin HTTP/2', async () => {
    const { guard, port } = await serve({ credentials: tls });
    const socket = tlsConnect({ port, host: 'localhost', ca: tlsFile('ca.pem'), ALPNProtocols: ['h2'] });
    socket.on('error', () => {}).resume();
    await once(socket, 'secureConnect');
    sweep(5);
    await once(socket, 'close');
    expect(guard.getStatistics()).toMatchObject({ handshakeTimeouts: 1 });
  });

  it.each([false, true])('leaves a connection alone that has shaken hands (over TLS: %s)', async (secure) => {
    const { guard, port } = await serve(secure ? { credentials: tls } : {});
    const session = await http2(port, secure);
    sweep(20);
    await settled(session);
    expect(guard.getStatistics()).toEqual({
      connections: 1,
      refused: 0,
      handshakeTimeouts: 0,
      slowPeers: 0,
      silentPeers: 0,
    });
  });

  it('of Infinity is none', async () => {
    const { guard, port } = await serve({ handshakeTimeoutMs: Number.POSITIVE_INFINITY });
    open(port);
    await accepted(guard);
    sweep(1_000);
    expect(guard.getStatistics()).toMatchObject({ connections: 1, handshakeTimeouts: 0 });
  });
});

describe('a peer is told', () => {
  it('how many streams and how much metadata it may send', async () => {
    const { port } = await serve({ maxStreamsPerConnection: 7, maxMetadataBytes: 2_048 });
    expect((await http2(port)).remoteSettings).toMatchObject({ maxConcurrentStreams: 7, maxHeaderListSize: 8_192 });
  });

  it('by default 1024 and 64 KiB', async () => {
    const { port } = await serve();
    expect((await http2(port)).remoteSettings).toMatchObject({ maxConcurrentStreams: 1024, maxHeaderListSize: 65_536 });
  });
});

describe('maxMetadataBytes', () => {
  it('is counted as HTTP/2 counts', () => {
    const guard = new ConnectionGuard({ maxMetadataBytes: 1_024 }, new RecordingLogger());
    const metadata = { 'x-a': 'a'.repeat(1_024 - 32 - 3) };
    guard.assertMetadata(metadata);
    expect(() => guard.assertMetadata({ ...metadata, 'x-b': '' })).toThrow(
      expect.objectContaining({
        code: 'RESOURCE_EXHAUSTED',
        reason: 'METADATA_TOO_LARGE',
        message:
          'the call has 1059 bytes of metadata, more than maxMetadataBytes allows (1024); send less along, or raise it on the server',
      }),
    );
  });

  it('four times over is cut off while it is read, and the connection lives', async () => {
    const { guard, port } = await serve({ maxMetadataBytes: 1_024 });
    const session = await http2(port);
    const fits = call(session, 'Compute', { 'x-a': 'a'.repeat(3_000) });
    fits.stream.resume().end(message(1));
    const huge = call(session, 'Compute', { 'x-a': 'a'.repeat(5_000) });
    const gigantic = call(session, 'Compute', { 'x-a': 'a'.repeat(100_000) });
    expect(await fits.outcome).toMatchObject({ status: '0' });
    const ENHANCE_YOUR_CALM = 11;
    expect(await huge.outcome).toEqual({ reset: ENHANCE_YOUR_CALM });
    expect(await gigantic.outcome).toEqual({ reset: ENHANCE_YOUR_CALM });
    await settled(session);
    expect(guard.getStatistics().connections).toBe(1);
  });
});

describe('slowPeerTimeoutMs', () => {
  const slowPeer = {
    status: '4',
    reason: 'SLOW_PEER',
    message: `the rest of the request did not come within ${TIMEOUT_MS} ms; check the network, and that the caller still runs`,
    reset: 0,
  };

  it.each<[string, string, Buffer]>([
    ['a call that sends no message', 'Compute', Buffer.of()],
    ['a call that sends half a message', 'Compute', message(100).subarray(0, 50)],
    ['a call that sends a message and no end', 'Compute', message(100)],
    ['a session that sends a part of a length', 'ComputeStream', message(100).subarray(0, 2)],
    ['a session that sends half a message', 'ComputeStream', message(100).subarray(0, 50)],
  ])('ends %s, and not before its time, and leaves the connection', async (_, name, bytes) => {
    const { guard, port } = await serve();
    const session = await http2(port);
    const { stream, outcome } = call(session, name);
    stream.resume();
    if (bytes.byteLength > 0) stream.write(bytes);
    await settled(session);
    sweep(4);
    await settled(session);
    expect(stream.closed).toBe(false);
    sweep();
    expect(await outcome).toEqual(slowPeer);
    sweep(4);
    const next = call(session, 'Compute');
    next.stream.resume().end(message(1));
    expect(await next.outcome).toMatchObject({ status: '0' });
    expect(guard.getStatistics()).toEqual({
      connections: 1,
      refused: 0,
      handshakeTimeouts: 0,
      slowPeers: 1,
      silentPeers: 0,
    });
  });

  it('resets a session that is stuck in a message after it has been answered before', async () => {
    const { guard, port } = await serve();
    const session = await http2(port);
    const { stream, outcome } = call(session, 'ComputeStream');
    stream.write(message(10));
    await once(stream, 'data');
    stream.write(message(10).subarray(0, 7));
    await settled(session);
    sweep(5);
    const CANCEL = 8;
    expect(await outcome).toEqual({ reset: CANCEL });
    expect(guard.getStatistics()).toMatchObject({ connections: 1, slowPeers: 1 });
  });

  it('takes a trickle for nothing, and 1 KiB for progress', async () => {
    const { guard, port } = await serve();
    const session = await http2(port);
    const trickle = call(session, 'Compute');
    const slow = call(session, 'Compute');
    const bytes = message(MIB);
    slow.stream.resume();
    trickle.stream.resume();
    for (let turn = 0; turn < 10; turn++) {
      if (!trickle.stream.closed) trickle.stream.write(bytes.subarray(turn, turn + 1));
      slow.stream.write(bytes.subarray(turn * 1_024, (turn + 1) * 1_024));
      await settled(session);
      sweep();
    }
    expect(await trickle.outcome).toEqual(slowPeer);
    slow.stream.end(bytes.subarray(10 * 1_024));
    expect(await slow.outcome).toMatchObject({ status: '0' });
    expect(guard.getStatistics()).toMatchObject({ slowPeers: 1 });
  });

  it('leaves a call alone that computes for long', async () => {
    const begun = deferred();
    let answer: () => void = () => {};
    const { guard, port } = await serve({
      compute: ({ request }, callback) => {
        answer = () => callback(null, request);
        begun.resolve();
      },
    });
    const session = await http2(port);
    const { stream, outcome } = call(session, 'Compute');
    stream.resume().end(message(1));
    await begun.promise;
    sweep(100);
    answer();
    expect(await outcome).toMatchObject({ status: '0' });
    expect(guard.getStatistics()).toMatchObject({ slowPeers: 0 });
  });

  it('leaves a session alone that is silent between messages', async () => {
    const { guard, port } = await serve();
    const session = await http2(port);
    const { stream, outcome } = call(session, 'ComputeStream');
    let missing = 0;
    stream.on('data', (chunk: Buffer) => {
      missing -= chunk.byteLength;
    });
    for (const parts of [[message(0)], [message(70_000)], [message(300).subarray(0, 3), message(300).subarray(3)]]) {
      await settled(session);
      sweep(100);
      for (const part of parts) {
        missing += part.byteLength;
        stream.write(part);
        await settled(session);
        sweep();
      }
      await vi.waitUntil(() => missing === 0, { interval: 1 });
    }
    await settled(session);
    sweep(100);
    stream.end();
    expect(await outcome).toMatchObject({ status: '0' });
    expect(guard.getStatistics()).toMatchObject({ slowPeers: 0 });
  });

  it('leaves a session alone whose messages the server does not read', async () => {
    const calls: ServerDuplexStream<Buffer, Buffer>[] = [];
    const { guard, port } = await serve({ session: (one) => void calls.push(one) });
    const session = await http2(port);
    const { stream, outcome } = call(session, 'ComputeStream');
    for (let times = 0; times < 30; times++) stream.write(message(70_000));
    await vi.waitUntil(() => calls.length > 0, { interval: 1 });
    calls[0]?.once('data', () => calls[0]?.pause());
    await vi.waitUntil(() => calls[0]?.readableLength === calls[0]?.readableHighWaterMark, { interval: 1 });
    await settled(session);
    sweep(100);
    await settled(session);
    expect(stream.closed).toBe(false);
    let received = 1;
    calls[0]
      ?.on('data', () => received++)
      .on('end', () => calls[0]?.end())
      .resume();
    stream.resume().end();
    expect(await outcome).toMatchObject({ status: '0' });
    expect(received).toBe(30);
    expect(guard.getStatistics()).toMatchObject({ slowPeers: 0 });
  });

  it('leaves an Exchange alone: it looks after itself', async () => {
    const { guard, port } = await serve();
    const session = await http2(port);
    const { stream } = call(session, 'Exchange');
    stream.write(message(100).subarray(0, 50));
    await settled(session);
    sweep(100);
    await settled(session);
    expect(stream.closed).toBe(false);
    expect(guard.getStatistics()).toMatchObject({ slowPeers: 0 });
  });

  it.each([false, true])(
    'ends a call whose answer nobody reads, and not before its time (over TLS: %s)',
    async (secure) => {
      const { guard, port } = await serve({
        compute: (_, callback) => callback(null, message(MIB)),
        ...(secure && { credentials: tls }),
      });
      const session = await http2(port, secure);
      const { stream, outcome } = call(session, 'Compute');
      stream.end(message(1));
      await once(stream, 'response');
      await settled(session);
      sweep(4);
      await settled(session);
      expect(stream.closed).toBe(false);
      sweep(2);
      stream.resume();
      const CANCEL = 8;
      expect(await outcome).toEqual({ reset: CANCEL });
      expect(guard.getStatistics()).toMatchObject({ connections: 1, slowPeers: 1 });
    },
  );

  it.each([false, true])('leaves a call alone whose answer is read slowly (over TLS: %s)', async (secure) => {
    const { guard, port } = await serve({
      compute: (_, callback) => callback(null, message(4 * MIB)),
      ...(secure && { credentials: tls }),
    });
    const session = await http2(port, secure);
    const { stream, outcome } = call(session, 'Compute');
    stream.end(message(1));
    await once(stream, 'response');
    for (let turn = 0; turn < 20; turn++) {
      if (stream.readableLength === 0) await once(stream, 'readable');
      stream.read();
      await settled(session);
      sweep(2);
    }
    stream.resume();
    expect(await outcome).toMatchObject({ status: '0' });
    expect(guard.getStatistics()).toMatchObject({ slowPeers: 0 });
  });

  it('ends a call whose answer nobody reads, also while others keep the connection busy', async () => {
    const { guard, port } = await serve({ compute: (_, callback) => callback(null, message(200_000)) });
    const session = await http2(port);
    // So that what is not read of one call is not in the way of the others.
    session.setLocalWindowSize(MIB);
    const stuck = call(session, 'Compute');
    stuck.stream.end(message(1));
    await once(stuck.stream, 'response');
    for (let turn = 0; turn < 30; turn++) {
      const busy = call(session, 'Compute');
      busy.stream.resume().end(message(1));
      expect(await busy.outcome).toMatchObject({ status: '0' });
      sweep();
    }
    stuck.stream.resume();
    expect(await stuck.outcome).toMatchObject({ reset: 8 });
    expect(guard.getStatistics()).toMatchObject({ connections: 1, slowPeers: 1 });
  });

  it('leaves a session alone that is full all the time, and read', async () => {
    const full = deferred();
    const { guard, port } = await serve({
      session: (one) => {
        sendForEver(one, message(100_000));
        full.resolve();
      },
    });
    const session = await http2(port);
    const { stream } = call(session, 'ComputeStream');
    await full.promise;
    for (let turn = 0; turn < 40; turn++) {
      // Almost two messages at a time: there is always one that waits.
      for (let bytes = 0; bytes < 190_000; ) {
        const chunk = stream.read();
        if (chunk) bytes += (chunk as Buffer).byteLength;
        else await once(stream, 'readable');
      }
      sweep();
    }
    expect(stream.closed).toBe(false);
    expect(guard.getStatistics()).toMatchObject({ slowPeers: 0 });
    stream.close();
  });

  it('cuts a connection off that takes not even the end of the call', async () => {
    let sent = 0;
    const bytes = message(MIB);
    const { guard, port } = await serve({
      session: (one) => {
        const next = (error?: Error | null) => {
          if (!error) one.write(bytes, next);
          sent++;
        };
        next();
      },
    });
    const peer = await Http2Peer.to(port);
    closing.push(() => peer.socket.destroy());
    peer.begin().call(`${SERVICE}/ComputeStream`);
    peer.socket.pause();
    // The peer's machine takes some for it, and then no more.
    let before = 0;
    const isFull = () => {
      const full = sent > 0 && sent === before;
      before = sent;
      return full;
    };
    await vi.waitUntil(isFull, { interval: 20 });
    sweep(6);
    expect(guard.getStatistics()).toMatchObject({ connections: 1, slowPeers: 1 });
    sweep();
    await vi.waitUntil(() => guard.getStatistics().connections === 0, { interval: 1 });
  });
});

describe('silentPeerTimeoutMs', () => {
  const limits = { silentPeerTimeoutMs: TIMEOUT_MS };

  it.each([false, true])('leaves a peer alone that answers, however long it is idle (over TLS: %s)', async (secure) => {
    const { guard, port } = await serve({ ...limits, ...(secure && { credentials: tls }) });
    await http2(port, secure);
    for (let turn = 0; turn < 40; turn++) {
      sweep();
      // The server's ping goes out with this, and the answer has come before the next is due.
      for (let times = 0; times < 5; times++) await new Promise(setImmediate);
    }
    expect(guard.getStatistics()).toMatchObject({ connections: 1, silentPeers: 0 });
  });

  it('closes the connection of a peer that does not answer, and not before its time', async () => {
    const { guard, port } = await serve(limits);
    const peer = await Http2Peer.to(port);
    peer.begin().frame(FRAME.ping, 0, 0, Buffer.alloc(8));
    await peer.receives(FRAME.ping);
    sweep();
    sweep(8);
    expect(guard.getStatistics()).toMatchObject({ connections: 1, silentPeers: 0 });
    await peer.receives(FRAME.ping);
    sweep();
    await peer.closed;
    expect(guard.getStatistics()).toMatchObject({ silentPeers: 1 });
  });

  it('closes connections that node has given up and forgotten: after too many resets, and after a broken frame', async () => {
    const { guard, port } = await serve(limits);
    const resetting = await Http2Peer.to(port);
    resetting.begin();
    const CANCEL = Buffer.of(0, 0, 0, 8);
    // At once, as they count less the slower they come.
    resetting.socket.cork();
    for (let times = 0; times < 1_100; times++) {
      resetting.frame(FRAME.reset, 0, resetting.call(`${SERVICE}/Compute`), CANCEL);
    }
    resetting.socket.uncork();
    await resetting.receives(FRAME.goaway);
    const broken = await Http2Peer.to(port);
    broken.begin().frame(FRAME.ping, 0, 0, Buffer.alloc(20_000));
    await broken.receives(FRAME.goaway);
    expect(guard.getStatistics().connections).toBe(2);
    sweep(10);
    await Promise.all([resetting.closed, broken.closed]);
    await vi.waitUntil(() => guard.getStatistics().connections === 0, { interval: 1 });
    expect(guard.getStatistics()).toMatchObject({ silentPeers: 2, slowPeers: 0 });
  });
});

describe('a flood', () => {
  it.each([
    ['pings', FRAME.ping, Buffer.alloc(8)],
    ['settings', FRAME.settings, Buffer.alloc(0)],
  ])('of %s ends the connection', async (_, type, payload) => {
    const { guard, port } = await serve();
    const peer = await Http2Peer.to(port);
    peer.begin().socket.write(Buffer.concat(new Array<Buffer>(10_000).fill(frame(type, 0, 0, payload))));
    await peer.closed;
    await vi.waitUntil(() => guard.getStatistics().connections === 0, { interval: 1 });
  });
});

describe('a guard', () => {
  it('closes all connections, also those that never said a word', async () => {
    const { guard, port } = await serve();
    const session = await http2(port);
    const silent = open(port);
    await vi.waitUntil(() => guard.getStatistics().connections === 2, { interval: 1 });
    const closed = Promise.all([once(session, 'close'), once(silent, 'close')]);
    guard.destroyAll();
    await closed;
    await vi.waitUntil(() => guard.getStatistics().connections === 0, { interval: 1 });
    expect(vi.getTimerCount()).toBe(0);
  });

  it('says so when it finds nothing to watch', () => {
    const logger = new RecordingLogger();
    new ConnectionGuard({}, logger).watch({} as Server);
    expect(logger.lines).toEqual([
      'the connections of this version of grpc-js cannot be watched: their limits are not in force',
    ]);
  });

  it.each<[ConnectionLimits, string]>([
    [{ maxConnections: 0 }, 'maxConnections must be an integer of 1 or more; it is 0'],
    [{ maxStreamsPerConnection: 1.5 }, 'maxStreamsPerConnection must be an integer from 1 to 4294967295; it is 1.5'],
    [{ maxMetadataBytes: 100 }, 'maxMetadataBytes must be an integer from 1024 to 4194304; it is 100'],
    [
      { handshakeTimeoutMs: 0 },
      'handshakeTimeoutMs must be more than 0 milliseconds, or Infinity for no limit; it is 0',
    ],
    [
      { slowPeerTimeoutMs: Number.NaN },
      'slowPeerTimeoutMs must be more than 0 milliseconds, or Infinity for no limit; it is NaN',
    ],
  ])('is not made with %o', (limits, message) => {
    expect(() => new ConnectionGuard(limits, new RecordingLogger())).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message }),
    );
  });
});
