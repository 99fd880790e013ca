import { promisify } from 'node:util';
import * as nodeZlib from 'node:zlib';

// gzip (RFC 1952) and Zstandard (RFC 8878) as Node.js has them, each at its fastest standard level: on a network that is
// worth compressing for, a better level takes more time than it saves.

export type CompressionName = 'gzip' | 'zstd';

interface ZlibOptions {
  readonly maxOutputLength: number;
  readonly chunkSize: number;
  readonly level?: number;
  readonly params?: Record<number, number>;
}
type Sync = (bytes: Uint8Array, options: ZlibOptions) => Uint8Array;
type Callback = (error: Error | null, result: Buffer) => void;
type Async = (bytes: Uint8Array, options: ZlibOptions, callback: Callback) => void;

/** What is used of `node:zlib`. Zstandard is there since Node.js 22.15 and 23.8. */
export interface ZlibModule {
  readonly gzip: Async;
  readonly gzipSync: Sync;
  readonly gunzip: Async;
  readonly gunzipSync: Sync;
  readonly zstdCompress?: Async;
  readonly zstdCompressSync?: Sync;
  readonly zstdDecompress?: Async;
  readonly zstdDecompressSync?: Sync;
}

/** Decompressed bytes are more than were allowed. They were thrown away, and no more memory taken than was allowed. */
export class TooManyBytesError extends Error {}

/** The bytes are not in the format. */
export class MalformedBytesError extends Error {}

/** One compression format. The `Sync` forms block the event loop; the others run in libuv's thread pool. */
export interface Compressor {
  /** @returns The compressed bytes; `undefined` where they are no fewer, as always of 64 bytes or less. */
  compress(bytes: Uint8Array): Promise<Uint8Array | undefined>;
  compressSync(bytes: Uint8Array): Uint8Array | undefined;
  /**
   * @param maxBytes - Of the result. It is also what is allocated, at once, where `exact` is set.
   * @param exact - Whether the result is expected to have `maxBytes`.
   * @returns Bytes on memory of their own, not in Node.js' pool.
   * @throws TooManyBytesError, MalformedBytesError
   */
  decompress(bytes: Uint8Array, maxBytes: number, exact: boolean): Promise<Uint8Array>;
  decompressSync(bytes: Uint8Array, maxBytes: number, exact: boolean): Uint8Array;
}

/** The compressors that a runtime has. */
export type Compressors = { readonly [name in CompressionName]?: Compressor };

const GZIP_LEVEL = 1; // Z_BEST_SPEED

// Numbers of zstd.h's stable interface, which the types of Node.js 20 lack.
const ZSTD_C_COMPRESSION_LEVEL = 100;
const ZSTD_D_WINDOW_LOG_MAX = 100;
const ZSTD_LEVEL = 1;
/** 8 MiB, which RFC 8878 section 3.1.1.1.2 recommends decoders to support; the memory is taken beside the result's. */
const ZSTD_WINDOW_LOG_MAX = 23;

/** What the given `node:zlib` can do. */
export function compressorsOf(zlib: ZlibModule): Compressors {
  const { zstdCompress, zstdCompressSync, zstdDecompress, zstdDecompressSync } = zlib;
  const gzip = compressor([zlib.gzip, zlib.gzipSync, { level: GZIP_LEVEL }], [zlib.gunzip, zlib.gunzipSync, {}]);
  if (!zstdCompress || !zstdCompressSync || !zstdDecompress || !zstdDecompressSync) return { gzip };
  const zstd = compressor(
    [zstdCompress, zstdCompressSync, { params: { [ZSTD_C_COMPRESSION_LEVEL]: ZSTD_LEVEL } }],
    [zstdDecompress, zstdDecompressSync, { params: { [ZSTD_D_WINDOW_LOG_MAX]: ZSTD_WINDOW_LOG_MAX } }],
  );
  return { gzip, zstd };
}

/** What this runtime can do. */
export const COMPRESSORS: Compressors = compressorsOf(nodeZlib as ZlibModule);

type Direction = readonly [Async, Sync, Pick<ZlibOptions, 'level' | 'params'>];

function compressor(compressing: Direction, decompressing: Direction): Compressor {
  const [compressAsync, compressSync, compressOptions] = compressing;
  const [decompressAsync, decompressSync, decompressOptions] = decompressing;
  const toCompress = ({ byteLength }: Uint8Array): ZlibOptions => ({
    ...compressOptions,
    maxOutputLength: byteLength - 1,
    chunkSize: byteLength,
  });
  const toDecompress = (maxBytes: number, exact: boolean): ZlibOptions => ({
    ...decompressOptions,
    maxOutputLength: Math.max(1, maxBytes),
    // One byte more than the result has tells its end from a full buffer, so one buffer does, and nothing is copied. Where
    // the size is not known, memory grows with what there is: a few bytes must not be enough to have the limit allocated.
    chunkSize: Math.max(MIN_CHUNK_BYTES, exact ? maxBytes + 1 : Math.min(maxBytes, GROWTH_BYTES)),
  });
  return {
    async compress(bytes) {
      if (bytes.byteLength <= MIN_CHUNK_BYTES) return undefined;
      return promisify(compressAsync)(bytes, toCompress(bytes)).then(plain, undefinedIfTooMany);
    },
    compressSync(bytes) {
      if (bytes.byteLength <= MIN_CHUNK_BYTES) return undefined;
      try {
        return plain(compressSync(bytes, toCompress(bytes)));
      } catch (error) {
        return undefinedIfTooMany(error);
      }
    },
    async decompress(bytes, maxBytes, exact) {
      return promisify(decompressAsync)(bytes, toDecompress(maxBytes, exact)).then(owned, failed);
    },
    decompressSync(bytes, maxBytes, exact) {
      try {
        return owned(decompressSync(bytes, toDecompress(maxBytes, exact)));
      } catch (error) {
        return failed(error);
      }
    },
  };
}

/** The smallest buffer that zlib takes for its output. */
const MIN_CHUNK_BYTES = 64;
const GROWTH_BYTES = 64 * 1024;

function plain({ buffer, byteOffset, byteLength }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** A received tensor's memory may move to another thread, so it must not be a part of the pool for small buffers. */
function owned(bytes: Uint8Array): Uint8Array {
  const shared = bytes.buffer.byteLength > bytes.byteLength + MIN_CHUNK_BYTES;
  return shared ? new Uint8Array(bytes) : plain(bytes);
}

function undefinedIfTooMany(error: unknown): undefined {
  if (!isTooMany(error)) throw error;
}

function failed(error: unknown): never {
  if (isTooMany(error)) throw new TooManyBytesError('too many bytes', { cause: error });
  const { code = '', message } = error as NodeJS.ErrnoException;
  if (/^Z(STD)?_/.test(code)) throw new MalformedBytesError(message, { cause: error });
  throw error;
}

function isTooMany(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE';
}
