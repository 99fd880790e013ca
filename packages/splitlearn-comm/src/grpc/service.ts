import type { EncodedMessage } from '../codec/wire.js';
import { writtenInPlace } from './internals.js';

// The service as grpc-js sees it: bytes in, bytes out. Messages are encoded and decoded in codec/wire.ts, so that a
// malformed one is our INVALID_ARGUMENT with a message, and not grpc-js's INTERNAL without one.

/** The full name of the service, as health checks and reflection know it. */
export const SERVICE_NAME = 'splitlearn.comm.v1.ComputeService';

export const COMPUTE_SERVICE = {
  // The server's one answer is written at once; all else may wait inside of grpc-js, so it goes there as bytes.
  Compute: method('Compute', false, writtenInPlace),
  ComputeStream: method('ComputeStream', true, toBuffer),
  GetServiceInfo: method('GetServiceInfo', false, toBuffer),
  Exchange: method('Exchange', true, toBuffer),
} as const;

function method<Response extends Uint8Array | EncodedMessage>(
  name: string,
  streaming: boolean,
  responseSerialize: (message: Response) => Buffer,
) {
  return {
    path: `/${SERVICE_NAME}/${name}`,
    requestStream: streaming,
    responseStream: streaming,
    requestSerialize: toBuffer,
    requestDeserialize: (bytes: Buffer): Uint8Array => bytes,
    responseSerialize,
    responseDeserialize: (bytes: Buffer): Uint8Array => bytes,
  };
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
