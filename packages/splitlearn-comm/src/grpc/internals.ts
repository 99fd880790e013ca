import type { Http2Server, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import type { EncodedMessage } from '../codec/wire.js';

// All that leans on what grpc-js 1.14 keeps to itself. Everything here is looked up with care, and says so where it is
// not found; then messages go through grpc-js as it is, more slowly. package.json pins its minor version, and
// test/grpc-internals.test.ts says whether all is where it was.

/** Larger than the default of 16 KiB: a read of node is up to 64 KiB, and each frame of it costs. */
const MAX_FRAME_BYTES = 1024 * 1024;

/** How grpc-js's calls name the next one on the way to the transport. */
const INWARDS = ['call', 'nextCall', 'child', 'underlyingCalls', '0'];
const MAX_DEPTH = 8;

/** The HTTP/2 stream of a client's or a server's call. */
export function findHttp2Stream(call: object, depth = 0): ServerHttp2Stream | undefined {
  for (const name of ['http2Stream', 'stream']) {
    const found: unknown = Reflect.get(call, name);
    if (isHttp2Stream(found)) return found;
  }
  if (depth === MAX_DEPTH) return undefined;
  for (const name of INWARDS) {
    const inner: unknown = Reflect.get(call, name);
    const found = typeof inner === 'object' && inner !== null ? findHttp2Stream(inner, depth + 1) : undefined;
    if (found) return found;
  }
  return undefined;
}

function isHttp2Stream(value: unknown): value is ServerHttp2Stream {
  return typeof value === 'object' && value !== null && 'session' in value && 'rstCode' in value && 'cork' in value;
}

/**
 * The receive window of a server's streams. grpc-js reads its option `grpc-node.flow_control_window` on the client only
 * (https://github.com/grpc/grpc-node/pull/3058). Call it before the server is bound.
 *
 * @returns whether it could be set.
 */
export function setStreamWindow(server: Server, windowBytes: number): boolean {
  const { commonServerOptions } = server as unknown as { readonly commonServerOptions?: { settings?: object } };
  if (typeof commonServerOptions !== 'object') return false;
  const { settings } = commonServerOptions;
  commonServerOptions.settings = { ...settings, initialWindowSize: windowBytes, maxFrameSize: MAX_FRAME_BYTES };
  return true;
}

/** The listeners of a bound server. */
export function findListeners(server: Server): readonly Http2Server[] {
  const { http2Servers } = server as unknown as { readonly http2Servers?: ReadonlyMap<Http2Server, unknown> };
  return http2Servers instanceof Map ? [...http2Servers.keys()] : [];
}

/** Raises the window of all streams of a connection together, which settings do not. */
export function setConnectionWindow(session: ServerHttp2Session | undefined, windowBytes: number): void {
  if (session && !session.destroyed) session.setLocalWindowSize(windowBytes);
}

/**
 * A message that grpc-js takes for a serialized one: it asks for no more than its length and that it copy itself into
 * the frame. So tensors are written once, and not into a buffer first.
 */
export function writtenInPlace(message: EncodedMessage): Buffer {
  const { byteLength } = message;
  const stand = {
    length: byteLength,
    byteLength,
    copy(target: Uint8Array, offset: number): number {
      message.writeTo(target, offset);
      return byteLength;
    },
  };
  return stand as unknown as Buffer;
}
