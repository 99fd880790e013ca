import { once } from 'node:events';
import { connect as http2Connect, type IncomingHttpHeaders } from 'node:http2';
import { connect, createServer, type Server, type Socket } from 'node:net';
import {
  Client,
  type ClientDuplexStream,
  credentials,
  status as grpcStatus,
  Metadata,
  type ServiceError,
} from '@grpc/grpc-js';

const SERVICE = '/splitlearn.comm.v1.ComputeService';

/** How a call of a raw client ended. */
export interface RawAnswer {
  readonly code: string;
  readonly details: string;
  readonly bytes?: Buffer;
}

/** Any gRPC client: it sends whatever bytes it is given, and adds nothing of this package. */
export class RawClient implements AsyncDisposable {
  readonly grpc: Client;

  constructor(address: string) {
    this.grpc = new Client(address, credentials.createInsecure());
  }

  unary(method: 'Compute' | 'GetServiceInfo', bytes: Uint8Array, metadata = new Metadata()): Promise<RawAnswer> {
    return new Promise((resolve) => {
      this.grpc.makeUnaryRequest(`${SERVICE}/${method}`, toBuffer, keep, bytes, metadata, (error, answer) => {
        if (error) resolve({ code: grpcStatus[error.code], details: error.details });
        else resolve({ code: 'OK', details: '', ...(answer && { bytes: answer }) });
      });
    });
  }

  stream(): ClientDuplexStream<Uint8Array, Buffer> {
    return this.grpc.makeBidiStreamRequest(`${SERVICE}/ComputeStream`, toBuffer, keep);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.grpc.close();
  }
}

/** What a raw stream yields until it ends, and how it ends. */
export async function readRaw(stream: ClientDuplexStream<Uint8Array, Buffer>) {
  const messages: Buffer[] = [];
  stream.on('data', (message: Buffer) => messages.push(message));
  const failed = once(stream, 'error').then(([error]) => error as ServiceError);
  const ended = once(stream, 'status').then(() => undefined);
  ended.catch(() => {});
  const error = await Promise.race([failed, ended]);
  return {
    messages,
    ...(error ? { code: grpcStatus[error.code], details: error.details } : { code: 'OK', details: '' }),
  };
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function keep(bytes: Buffer): Buffer {
  return bytes;
}

/** A call in no more than HTTP/2. It ends when the server ends it, and never by itself. */
export interface Http2Call {
  readonly outcome: Promise<{ readonly code: string; readonly details: string }>;
  close(): void;
}

export interface Http2CallOptions {
  /** The grpc-timeout header: a number and a unit, such as 50m for 50 milliseconds. */
  readonly timeout?: string;
  /** What is sent, the message's five bytes of prefix among it. Default: an empty message. */
  readonly body?: Uint8Array;
  /** Whether that is all. Default: yes. */
  readonly end?: boolean;
}

export function http2Call(
  port: number,
  method: 'Compute' | 'ComputeStream',
  options: Http2CallOptions = {},
): Http2Call {
  const { timeout, body = new Uint8Array(5), end = true } = options;
  const session = http2Connect(`http://127.0.0.1:${port}`);
  const stream = session.request(
    {
      ':method': 'POST',
      ':path': `${SERVICE}/${method}`,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...(timeout !== undefined && { 'grpc-timeout': timeout }),
    },
    { endStream: false },
  );
  const status = new Promise<IncomingHttpHeaders>((resolve) => {
    const look = (headers: IncomingHttpHeaders) => 'grpc-status' in headers && resolve(headers);
    stream
      .on('response', look)
      .on('trailers', look)
      .on('error', () => {});
  });
  stream.resume();
  if (end) stream.end(body);
  else stream.write(body);
  const outcome = status.then((headers) => ({
    code: String(grpcStatus[Number(headers['grpc-status'])]),
    details: decodeURI(String(headers['grpc-message'])),
  }));
  return { outcome, close: () => session.destroy() };
}

/** A wire between client and server that counts connections, and can be cut. */
export class Wire implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #connections = 0;

  private constructor(targetPort: number) {
    this.#server = createServer((near) => {
      this.#connections++;
      const far = connect(targetPort, '127.0.0.1');
      for (const [socket, other] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          this.#sockets.delete(socket);
          other.destroy();
        });
        socket.pipe(other);
      }
    });
  }

  static async to(port: number): Promise<Wire> {
    const wire = new Wire(port);
    await once(wire.#server.listen(0, '127.0.0.1'), 'listening');
    return wire;
  }

  get address(): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('the wire is down');
    return `127.0.0.1:${address.port}`;
  }

  /** How many connections there have been. */
  get connections(): number {
    return this.#connections;
  }

  /** Breaks the connections, as a cable that is pulled. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
