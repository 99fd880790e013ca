import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

/** HTTP/2 frames (RFC 9113, 6). */
export const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7, windowUpdate: 8 } as const;
export const END_HEADERS = 4;
export const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

const HEADER_BYTES = 9;
const MAX_WINDOW = 2 ** 31 - 1;
const INITIAL_WINDOW_SIZE = 4;

/** A peer that writes frames by hand. It reads what comes back, and answers nothing, until its socket is paused. */
export class Http2Peer {
  readonly socket: Socket;
  readonly closed: Promise<void>;
  #nextStream = 1;
  #unread = Buffer.alloc(0);
  readonly #received: number[] = [];
  #noticed = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.on('close', () => resolve()));
    socket.on('error', () => {}).on('data', (bytes) => this.#read(bytes));
  }

  static async to(port: number): Promise<Http2Peer> {
    const socket = connect(port, '127.0.0.1');
    await once(socket, 'connect');
    return new Http2Peer(socket);
  }

  /** Begins HTTP/2, and allows the server to send as much as it likes. */
  begin(): this {
    const settings = Buffer.alloc(6);
    settings.writeUInt16BE(INITIAL_WINDOW_SIZE);
    settings.writeUInt32BE(MAX_WINDOW, 2);
    const increment = Buffer.alloc(4);
    increment.writeUInt32BE(MAX_WINDOW - 65_535);
    this.socket.write(PREFACE);
    return this.frame(FRAME.settings, 0, 0, settings).frame(FRAME.windowUpdate, 0, 0, increment);
  }

  frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): this {
    this.socket.write(frame(type, flags, stream, payload));
    return this;
  }

  /** Waits for a frame of a type, since the last one that was waited for. */
  async receives(type: number): Promise<void> {
    while (!this.#received.includes(type)) await new Promise<void>((resolve) => (this.#noticed = resolve));
    this.#received.splice(0, this.#received.indexOf(type) + 1);
  }

  /** Opens a call, and sends no message. */
  call(path: string): number {
    const stream = this.#nextStream;
    this.#nextStream += 2;
    const headers = { ':method': 'POST', ':scheme': 'http', ':path': path, ':authority': 'x' };
    this.frame(FRAME.headers, END_HEADERS, stream, encodeHeaders({ ...headers, 'content-type': 'application/grpc' }));
    return stream;
  }

  #read(bytes: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, bytes]);
    while (this.#unread.byteLength >= HEADER_BYTES) {
      const length = HEADER_BYTES + this.#unread.readUIntBE(0, 3);
      if (this.#unread.byteLength < length) break;
      this.#received.push(this.#unread[3] as number);
      this.#unread = this.#unread.subarray(length);
    }
    this.#noticed();
  }
}

export function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUIntBE(payload.byteLength, 0, 3);
  header[3] = type;
  header[4] = flags;
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

/** As literals that nobody needs to remember (RFC 7541, 6.2.2). */
function encodeHeaders(headers: Readonly<Record<string, string>>): Buffer {
  const text = (value: string) => [Buffer.of(value.length), Buffer.from(value)];
  return Buffer.concat(
    Object.entries(headers).flatMap(([name, value]) => [Buffer.of(0), ...text(name), ...text(value)]),
  );
}
