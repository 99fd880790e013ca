import type { MethodDefinition } from '@grpc/grpc-js';

// The service as grpc-js sees it: bytes in, bytes out. Messages are encoded and decoded in codec/wire.ts, so that a
// malformed one is our INVALID_ARGUMENT with a message, and not grpc-js's INTERNAL without one.

/** The full name of the service, as health checks and reflection know it. */
export const SERVICE_NAME = 'splitlearn.comm.v1.ComputeService';

export const COMPUTE_SERVICE = {
  Compute: method('Compute', false),
  ComputeStream: method('ComputeStream', true),
  GetServiceInfo: method('GetServiceInfo', false),
} as const;

function method(name: string, streaming: boolean): MethodDefinition<Uint8Array, Uint8Array> {
  return {
    path: `/${SERVICE_NAME}/${name}`,
    requestStream: streaming,
    responseStream: streaming,
    requestSerialize: toBuffer,
    requestDeserialize: (bytes) => bytes,
    responseSerialize: toBuffer,
    responseDeserialize: (bytes) => bytes,
  };
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
