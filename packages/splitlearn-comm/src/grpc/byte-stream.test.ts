import { once } from 'node:events';
import {
  Client,
  type ClientDuplexStream,
  credentials,
  Server,
  ServerCredentials,
  type ServerDuplexStream,
} from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { deferred } from '../../test/support/deferred.js';
import { prefixed, splitMessages } from '../../test/support/exchange-frames.js';
import { type ByteReader, type ByteStream, takeOver } from './byte-stream.js';
import { findHttp2Stream } from './internals.js';
import { COMPUTE_SERVICE } from './service.js';

type Call = ServerDuplexStream<Uint8Array, Uint8Array>;
type Internals = typeof findHttp2Stream;

const notFound: Internals = () => undefined;

/** What has come, and a way to wait for more of it. */
class Received implements ByteReader {
  readonly ended = deferred();
  #chunks: Uint8Array[] = [];
  #byteLength = 0;
  #wanted: { readonly count: number; readonly resolve: () => void } | undefined;

  readonly data = (chunk: Uint8Array): void => {
    this.#chunks.push(chunk);
    this.#byteLength += chunk.byteLength;
    this.#look();
  };

  readonly end = (): void => this.ended.resolve();

  /** So many bytes, when they are there. */
  async take(count: number): Promise<Buffer> {
    const { promise, resolve } = deferred();
    this.#wanted = { count, resolve };
    this.#look();
    await promise;
    this.#wanted = undefined;
    const bytes = Buffer.concat(this.#chunks);
    this.#chunks = [bytes.subarray(count)];
    this.#byteLength -= count;
    return bytes.subarray(0, count);
  }

  get left(): number {
    return this.#byteLength;
  }

  #look(): void {
    if (this.#wanted && this.#byteLength >= this.#wanted.count) this.#wanted.resolve();
  }
}

interface Side {
  readonly stream: ByteStream;
  readonly received: Received;
}

interface Pair extends AsyncDisposable {
  readonly client: Side & { readonly call: ClientDuplexStream<Uint8Array, Uint8Array> };
  readonly server: Side & { readonly call: Call };
}

async function connect(onClient: Internals, onServer: Internals): Promise<Pair> {
  const accepted = deferred<Side & { readonly call: Call }>();
  const grpc = new Server({ 'grpc.max_receive_message_length': -1 });
  grpc.addService(
    { Exchange: COMPUTE_SERVICE.Exchange },
    {
      Exchange(call: Call) {
        call.sendMetadata(call.metadata);
        const received = new Received();
        accepted.resolve({ call, received, stream: takeOver(call, received, onServer) });
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    grpc.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const channel = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': -1,
  });
  const { path, requestSerialize, responseDeserialize } = COMPUTE_SERVICE.Exchange;
  const call = channel.makeBidiStreamRequest(path, requestSerialize, responseDeserialize);
  // A call that is cancelled says so, also where nobody asks.
  call.on('error', () => {});
  await once(call, 'metadata');
  const received = new Received();
  const client = { call, received, stream: takeOver(call, received, onClient) };
  return {
    client,
    server: await accepted.promise,
    async [Symbol.asyncDispose]() {
      channel.close();
      grpc.forceShutdown();
    },
  };
}

function send({ stream }: Side, chunks: readonly Uint8Array[]): Promise<void> {
  return new Promise((resolve) => stream.write(chunks, resolve));
}

const message = (byteLength: number, value: number) => prefixed(Buffer.alloc(byteLength, value));

describe.each([
  ['http2', 'http2', findHttp2Stream, findHttp2Stream],
  ['http2', 'messages', findHttp2Stream, notFound],
  ['messages', 'http2', notFound, findHttp2Stream],
  ['messages', 'messages', notFound, notFound],
] as const)('a stream over %s to one over %s', (clientPath, serverPath, onClient, onServer) => {
  it('brings all bytes across, both ways, and says when they have left', async () => {
    await using pair = await connect(onClient, onServer);
    expect([pair.client.stream.path, pair.server.stream.path]).toEqual([clientPath, serverPath]);
    const sizes = [0, 1, 5, 70_000, 0, 3_000_000, 2];
    for (const [from, to] of [
      [pair.client, pair.server],
      [pair.server, pair.client],
    ] as const) {
      const messages = sizes.map((size, index) => message(size, index + 1));
      const all = Buffer.concat(messages);
      const arrived = to.received.take(all.byteLength);
      // One by one, and several together in parts that end anywhere.
      await Promise.all(messages.map((bytes) => send(from, [bytes])));
      expect(Buffer.compare(await arrived, all)).toBe(0);
      const again = to.received.take(all.byteLength);
      await send(from, [all.subarray(0, 3), all.subarray(3, 8), all.subarray(8, 50_000), all.subarray(50_000)]);
      expect(Buffer.compare(await again, all)).toBe(0);
      expect(splitMessages(all)).toHaveLength(sizes.length);
      expect(to.received.left).toBe(0);
    }
  });

  it('ends on one side and then the other, with a good status', async () => {
    await using pair = await connect(onClient, onServer);
    const status = once(pair.client.call, 'status');
    await send(pair.client, [message(3, 1)]);
    pair.client.stream.end();
    await pair.server.received.ended.promise;
    expect(await pair.server.received.take(8)).toEqual(message(3, 1));
    // The other half is still open.
    await send(pair.server, [message(4, 2)]);
    expect(await pair.client.received.take(9)).toEqual(message(4, 2));
    pair.server.call.end();
    expect((await status)[0]).toMatchObject({ code: 0 });
  });

  it('tells of a failure by a status, and writes nothing after it', async () => {
    await using pair = await connect(onClient, onServer);
    const failed = once(pair.client.call, 'error');
    pair.server.call.emit('error', { code: 13, details: 'malformed' });
    expect((await failed)[0]).toMatchObject({ code: 13, details: 'malformed' });
    let written = false;
    pair.client.stream.end();
    pair.client.stream.write([message(1, 1)], () => (written = true));
    await new Promise((resolve) => setImmediate(resolve));
    expect(written).toBe(false);
  });

  it('notices a client that is gone', async () => {
    await using pair = await connect(onClient, onServer);
    const gone = once(pair.server.call, 'cancelled');
    await send(pair.client, [message(1, 1)]);
    await pair.server.received.take(6);
    pair.client.call.cancel();
    await gone;
    expect(pair.server.call.cancelled).toBe(true);
  });
});
