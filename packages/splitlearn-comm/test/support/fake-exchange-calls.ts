import { EventEmitter } from 'node:events';
import { type Client, type ClientDuplexStream, Metadata, type ServerDuplexStream } from '@grpc/grpc-js';
import { splitlearn } from '#proto';
import { type PlainFrame, plainFrame } from './exchange-frames.js';

import v1 = splitlearn.comm.v1;

const HELLO = 'splitlearn-hello-bin';

export function helloMetadata(hello: v1.IHello): Metadata {
  const metadata = new Metadata();
  metadata.set(HELLO, Buffer.from(v1.Hello.encode(hello).finish()));
  return metadata;
}

/** One end of a bidirectional call as grpc-js makes it, as far as an Exchange looks at it. */
class FakeCall extends EventEmitter {
  cancelled = false;
  destroyed = false;
  writableEnded = false;
  /** Everything that has been written, and not been taken from here. */
  readonly frames: PlainFrame[] = [];
  /** Where the messages go that are written; by default no further. */
  peer: FakeCall | undefined;

  write(message: Uint8Array, written?: () => void): boolean {
    const bytes = Buffer.from(message);
    this.frames.push(plainFrame(bytes));
    this.peer?.emit('data', bytes);
    if (written) setImmediate(written);
    return true;
  }

  end(): void {
    this.writableEnded = true;
    this.peer?.emit('end');
  }

  getPeer(): string {
    return '10.0.0.7:51234';
  }

  getAuthContext(): object {
    return {};
  }

  /** Lets the other side's frames arrive. */
  receive(...frames: v1.IExchangeFrame[]): void {
    for (const frame of frames) this.emit('data', v1.ExchangeFrame.encode(frame).finish());
  }

  /** Takes what has been written of calls, in order. */
  takeFrames(): PlainFrame[] {
    return this.frames.splice(0).filter(({ connection }) => !connection);
  }
}

/** The server's end. */
export class FakeServerCall extends FakeCall {
  readonly metadata: Metadata;
  readonly sentMetadata: Metadata[] = [];
  /** The statuses that the call has ended with; there should be no more than one. */
  readonly failures: { readonly code: number; readonly details: string }[] = [];

  constructor(hello: v1.IHello = {}) {
    super();
    this.metadata = helloMetadata(hello);
    this.on('error', (status) => this.failures.push(status));
  }

  sendMetadata(metadata: Metadata): void {
    this.sentMetadata.push(metadata);
  }

  /** The client is gone. */
  lose(): void {
    this.cancelled = true;
    this.emit('cancelled');
    this.emit('close');
  }

  get asGrpc(): ServerDuplexStream<Uint8Array, Uint8Array> {
    return this as unknown as ServerDuplexStream<Uint8Array, Uint8Array>;
  }
}

/** The client's end. */
export class FakeClientCall extends FakeCall {
  isCancelled = false;
  metadata: Metadata | undefined;

  cancel(): void {
    this.isCancelled = true;
  }

  /** The server takes the call. */
  accept(hello: v1.IHello = {}): void {
    this.emit('metadata', helloMetadata(hello));
  }

  /** What a client is to who opens an Exchange. */
  get client(): Client {
    const makeBidiStreamRequest = (_path: string, _write: unknown, _read: unknown, metadata: Metadata) => {
      this.metadata = metadata;
      return this as unknown as ClientDuplexStream<Uint8Array, Uint8Array>;
    };
    return { makeBidiStreamRequest } as unknown as Client;
  }
}

/** Lets everything happen that does not wait for a timer. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}
