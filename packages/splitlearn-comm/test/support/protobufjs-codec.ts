import type {
  ComputeRequest,
  ComputeResponse,
  ComputeTiming,
  DType,
  JsonValue,
  Tensor,
  Tensors,
} from '@splitlearn/comm';
import { google, splitlearn } from '#proto';
import { fromStruct } from '../../src/codec/struct.js';
import { TensorCodec } from '../../src/codec/tensor-codec.js';

// Requests and responses by protobufjs: slowly, and by other hands than the code under test.

import v1 = splitlearn.comm.v1;

const codec = new TensorCodec();

/** Throws for whatever is not a valid request. */
export function readRequest(bytes: Uint8Array): {
  request: ComputeRequest;
  requestId?: string;
  outputEncoding: number;
} {
  const message = v1.ComputeRequest.decode(new Uint8Array(bytes));
  const request = {
    ...(message.model && { model: message.model }),
    inputs: readTensors(message.inputs),
    parameters: (message.parameters ? fromStruct(message.parameters) : {}) as Record<string, JsonValue>,
    outputs: message.outputs,
  };
  return {
    request,
    ...(message.requestId && { requestId: message.requestId }),
    outputEncoding: message.outputEncoding,
  };
}

/** Throws for whatever is not a valid response. */
export function readResponse(bytes: Uint8Array): {
  response: ComputeResponse;
  timing: ComputeTiming & { serverMs: number };
} {
  const message = v1.ComputeResponse.decode(new Uint8Array(bytes));
  const { queueMs, computeMs, serverMs, batchSize } = message.timing ?? {};
  const timing = { queueMs: queueMs ?? 0, computeMs: computeMs ?? 0, ...(batchSize && { batchSize }) };
  const outputs = readTensors(message.outputs);
  return {
    response: { ...(message.model && { model: message.model }), outputs, timing },
    timing: { ...timing, serverMs: serverMs ?? 0 },
  };
}

/** A tensor as a message. */
export function toMessage(name: string, tensor: Tensor): v1.ITensor {
  const { dtype, shape, data } = codec.encode(tensor, name);
  return { name, dtype: v1.DType[`DTYPE_${dtype.toUpperCase()}` as keyof typeof v1.DType], shape: [...shape], data };
}

/** Parameters as a message. */
export function toStruct(parameters: Readonly<Record<string, JsonValue>>): google.protobuf.IStruct {
  return { fields: Object.fromEntries(Object.entries(parameters).map(([key, value]) => [key, toValue(value)])) };
}

function toValue(value: JsonValue): google.protobuf.IValue {
  if (value === null) return { nullValue: google.protobuf.NullValue.NULL_VALUE };
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'number') return { numberValue: value };
  if (Array.isArray(value)) return { listValue: { values: value.map(toValue) } };
  return { structValue: toStruct(value as Record<string, JsonValue>) };
}

function readTensors(messages: readonly v1.ITensor[]): Tensors {
  const tensors = messages.map((message) => {
    if (message.encoding) throw new Error('an encoding');
    const dtype = String(v1.DType[message.dtype ?? 0])
      .slice('DTYPE_'.length)
      .toLowerCase() as DType;
    const shape = (message.shape ?? []).map(Number);
    return [message.name ?? '', codec.decode({ dtype, shape, data: message.data ?? new Uint8Array() })] as const;
  });
  if (new Set(tensors.map(([name]) => name)).size < tensors.length) throw new Error('two of one name');
  return Object.fromEntries(tensors);
}
