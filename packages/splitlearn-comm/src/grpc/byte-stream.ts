import type { ServerHttp2Stream } from 'node:http2';
import type { ClientDuplexStream, ServerDuplexStream } from '@grpc/grpc-js';
import { findHttp2Stream } from './internals.js';
import { StallBreaker } from './stall-breaker.js';

// An Exchange's bytes past grpc-js. It gathers, copies and queues each message in both directions, which costs more than
// all the rest of a call. What travels stays the same: gRPC messages behind their prefixes, in the same HTTP/2 stream.
// Where that stream is not found, whole messages go through grpc-js as usual.

type Bytes = Uint8Array;
type GrpcCall = ClientDuplexStream<Bytes, Bytes> | ServerDuplexStream<Bytes, Bytes>;

/** The bytes of a gRPC stream's messages, prefixes included. */
export interface ByteStream {
  /** `http2`: straight from and to the HTTP/2 stream. `messages`: through grpc-js. */
  readonly path: 'http2' | 'messages';
  /** Whether they go over a unix socket, or may. */
  readonly isUnixSocket: boolean;
  /** Writes whole messages; `written` is called when they have been handed to the network. Memory is not copied. */
  write(chunks: readonly Bytes[], written: () => void): void;
  /** Ends the sending side. */
  end(): void;
}

/** Who is told of what comes. */
export interface ByteReader {
  data(chunk: Bytes): void;
  /** The peer has ended its sending side. */
  end(): void;
}

const PREFIX_BYTES = 5;

/**
 * Takes a stream over. Call it before anything of it has been read: on the server at once, on the client when the
 * server's metadata has come. Its end, its errors and its status are still grpc-js's, and come as events of `call`.
 */
export function takeOver(call: GrpcCall, reader: ByteReader, internals = findHttp2Stream): ByteStream {
  const stream = internals(call);
  return stream ? overHttp2(stream, reader) : overMessages(call, reader);
}

function overHttp2(stream: ServerHttp2Stream, reader: ByteReader): ByteStream {
  stream.removeAllListeners('data');
  stream.on('data', reader.data);
  stream.once('end', reader.end);
  stream.resume();
  const stall = stream.session?.encrypted ? new StallBreaker(stream) : undefined;
  return {
    path: 'http2',
    isUnixSocket: stream.session?.socket?.remotePort === undefined,
    write(chunks, onWritten) {
      if (stream.destroyed || stream.writableEnded) return;
      const written = stall?.begin(onWritten) ?? onWritten;
      stream.cork();
      for (const [index, chunk] of chunks.entries()) {
        if (index === chunks.length - 1) stream.write(chunk, (error) => error ?? written());
        else stream.write(chunk);
      }
      stream.uncork();
    },
    end() {
      stream.end();
    },
  };
}

function overMessages(call: GrpcCall, reader: ByteReader): ByteStream {
  call.once('end', reader.end);
  call.on('data', (message: Bytes) => {
    const prefix = new Uint8Array(PREFIX_BYTES);
    new DataView(prefix.buffer).setUint32(1, message.length);
    reader.data(prefix);
    if (message.length > 0) reader.data(message);
  });
  return {
    path: 'messages',
    isUnixSocket: true,
    write(chunks, written) {
      if (call.destroyed || call.writableEnded) return;
      const bytes = Buffer.concat(chunks);
      for (let at = 0; at < bytes.length; ) {
        const end = at + PREFIX_BYTES + bytes.readUInt32BE(at + 1);
        const message = bytes.subarray(at + PREFIX_BYTES, end);
        if (end === bytes.length) call.write(message, (error: unknown) => error ?? written());
        else call.write(message);
        at = end;
      }
    },
    end() {
      call.end();
    },
  };
}
