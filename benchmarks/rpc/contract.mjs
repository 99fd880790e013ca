// comm's own contract, compute.proto, loaded at run time: all gRPC peers speak it, so that they do the same work. A
// message of nothing but shape and data would save proto-loader about 1 µs of a 3 KB echo.
import { fileURLToPath } from 'node:url';
import { loadSync } from '@grpc/proto-loader';
import { asBytes, asFloat32 } from './tensors.mjs';

const folder = fileURLToPath(new URL('../../packages/proto', import.meta.url));

/** Loaded with the options that proto-loader's README shows. */
export const packageDefinition = loadSync('splitlearn/comm/v1/compute.proto', {
  includeDirs: [folder],
  keepCase: true,
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
});

/** No limit on the size of messages. */
export const UNLIMITED = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 };

export function toRequest(tensor, requestId) {
  return { request_id: requestId, inputs: [toMessage('input', tensor)] };
}

/** A server's answer: the request's tensor, taken out and put in again. */
export function answer(request) {
  const tensor = asFloat32(request.inputs[0].data);
  return { request_id: request.request_id, outputs: [toMessage('output', tensor)] };
}

export function fromResponse(response) {
  return asFloat32(response.outputs[0].data);
}

function toMessage(name, tensor) {
  return { name, dtype: 'DTYPE_FLOAT32', shape: [tensor.length], data: asBytes(tensor) };
}
