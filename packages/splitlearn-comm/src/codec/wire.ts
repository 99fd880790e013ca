import { splitlearn } from '#proto';
import type {
  ComputeRequest,
  ComputeResponse,
  ComputeTiming,
  ModelInfo,
  ServiceInfo,
  TensorInfo,
} from '../compute-function.js';
import { CommError } from '../errors.js';
import type { DType, Tensors } from '../tensor.js';
import { markMovable } from '../transfer.js';
import { fromStruct, toStruct } from './struct.js';
import { TensorCodec } from './tensor-codec.js';

// The one place where protobuf bytes become our types and our types become protobuf bytes.

import v1 = splitlearn.comm.v1;

const codec = new TensorCodec();

/** Timing as it comes back from a server. */
export interface ServerTiming extends ComputeTiming {
  /** Milliseconds from the request's arrival at the server to its answer: queue, compute and all between. */
  readonly serverMs: number;
}

/** What a server says of itself on the wire. */
export interface WireServiceInfo extends ServiceInfo {
  /** The largest request or response, in bytes. */
  readonly maxMessageBytes: number;
}

export function encodeRequest(request: ComputeRequest, requestId: string): Uint8Array {
  return v1.ComputeRequest.encode({
    requestId,
    model: request.model ?? '',
    inputs: encodeTensors(request.inputs),
    parameters: request.parameters ? toStruct(request.parameters) : null,
    outputs: [...(request.outputs ?? [])],
  }).finish();
}

/** @throws CommError `INVALID_ARGUMENT` for whatever is not a valid request. */
export function decodeRequest(bytes: Uint8Array): { request: ComputeRequest; requestId?: string } {
  const message = parse('ComputeRequest', bytes, v1.ComputeRequest.decode);
  // The compute function that is given a request is the only one that holds it.
  const inputs = markMovable(decodeTensors(message.inputs));
  const request: ComputeRequest = {
    ...(message.model && { model: message.model }),
    inputs,
    parameters: message.parameters ? fromStruct(message.parameters) : {},
    outputs: message.outputs,
  };
  return { request, ...(message.requestId && { requestId: message.requestId }) };
}

/** @throws CommError `INTERNAL` for whatever is not a valid response: it is the compute function that is wrong. */
export function encodeResponse(response: ComputeResponse, requestId: string, serverMs: number): Uint8Array {
  return blaming('the compute function gave no valid response', () => {
    const { queueMs = 0, computeMs = serverMs } = response?.timing ?? {};
    return v1.ComputeResponse.encode({
      requestId,
      model: response?.model ?? '',
      outputs: encodeTensors(response?.outputs),
      timing: { queueMs, computeMs, serverMs },
    }).finish();
  });
}

/** @throws CommError `INTERNAL` for whatever is not a valid response: it is the server that is wrong. */
export function decodeResponse(bytes: Uint8Array): { response: ComputeResponse; timing: ServerTiming } {
  return blaming("the server's answer is malformed", () => {
    const message = parse('ComputeResponse', bytes, v1.ComputeResponse.decode);
    const { queueMs, computeMs, serverMs } = message.timing ?? {};
    const timing = { queueMs: queueMs ?? 0, computeMs: computeMs ?? 0 };
    const outputs = decodeTensors(message.outputs);
    const response = { ...(message.model && { model: message.model }), outputs, timing };
    return { response, timing: { ...timing, serverMs: serverMs ?? 0 } };
  });
}

export function encodeServiceInfo(info: WireServiceInfo): Uint8Array {
  return v1.ServiceInfo.encode({
    name: info.name,
    version: info.version,
    maxMessageBytes: info.maxMessageBytes,
    models: info.models.map((model) => ({
      name: model.name,
      state: model.state,
      inputs: (model.inputs ?? []).map(encodeTensorInfo),
      outputs: (model.outputs ?? []).map(encodeTensorInfo),
      attributes: { ...model.attributes },
    })),
  }).finish();
}

/** @throws CommError `INTERNAL` for whatever is no valid answer: it is the server that is wrong. */
export function decodeServiceInfo(bytes: Uint8Array): WireServiceInfo {
  return blaming("the server's answer is malformed", () => {
    const message = parse('ServiceInfo', bytes, v1.ServiceInfo.decode);
    return {
      name: message.name,
      version: message.version,
      maxMessageBytes: Number(message.maxMessageBytes),
      models: message.models.map(
        (model): ModelInfo => ({
          name: model.name ?? '',
          state: model.state ?? '',
          inputs: (model.inputs ?? []).map(decodeTensorInfo),
          outputs: (model.outputs ?? []).map(decodeTensorInfo),
          attributes: { ...model.attributes },
        }),
      ),
    };
  });
}

function encodeTensors(tensors: Tensors | undefined): v1.ITensor[] {
  if (typeof tensors !== 'object' || tensors === null) {
    throw invalid(`${tensors} is given where tensors by name are needed, as in { input: tensor([1, 2, 3]) }`);
  }
  return Object.entries(tensors).map(([name, tensor]) => {
    const { dtype, shape, data } = codec.encode(tensor, name);
    return { name, dtype: toWireDType(dtype), shape: [...shape], encoding: v1.Encoding.ENCODING_RAW, data };
  });
}

function decodeTensors(messages: readonly v1.ITensor[]): Tensors {
  const tensors = messages.map((message) => {
    const name = message.name ?? '';
    if (message.encoding) throw invalid(`tensor '${name}' has the unknown encoding ${message.encoding}`);
    const dtype = fromWireDType(message.dtype ?? 0, name);
    const shape = (message.shape ?? []).map(Number);
    // Not protobufjs' own empty array: all messages share it, and a tensor's memory may move to another thread.
    const data = message.data?.length ? message.data : new Uint8Array();
    const tensor = codec.decode({ dtype, shape, data }, name);
    return [name, tensor] as const;
  });
  const byName = Object.fromEntries(tensors);
  const seen = new Set<string>();
  for (const [name] of tensors) {
    if (seen.has(name)) throw invalid(`there are two tensors named '${name}'`);
    seen.add(name);
  }
  return byName;
}

function encodeTensorInfo(info: TensorInfo): v1.ITensorInfo {
  const shape = info.shape.map((size) => (typeof size === 'number' ? { size } : { symbol: size }));
  return { name: info.name, dtype: toWireDType(info.dtype), shape };
}

function decodeTensorInfo(message: v1.ITensorInfo): TensorInfo {
  const name = message.name ?? '';
  const shape = (message.shape ?? []).map((dimension) => dimension.symbol ?? Number(dimension.size));
  return { name, dtype: fromWireDType(message.dtype ?? 0, name), shape };
}

function toWireDType(dtype: DType): v1.DType {
  return v1.DType[`DTYPE_${dtype.toUpperCase()}` as keyof typeof v1.DType];
}

function fromWireDType(value: v1.DType, name: string): DType {
  if (!value || !(value in v1.DType)) throw invalid(`tensor '${name}' has the unknown dtype number ${value}`);
  return v1.DType[value].slice('DTYPE_'.length).toLowerCase() as DType;
}

function parse<T>(type: string, bytes: Uint8Array, decode: (bytes: Uint8Array) => T): T {
  // Node cuts small buffers out of a shared pool. A message must own its memory, because its tensors are views on it
  // that may move to another thread and take the whole buffer along.
  const owned = bytes.byteLength === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
  try {
    return decode(owned);
  } catch (cause) {
    throw invalid(`the bytes are no ${type}: ${(cause as Error).message}`, cause);
  }
}

/** Runs a step in which whatever fails is not the caller's fault. */
function blaming<T>(whatIsWrong: string, step: () => T): T {
  try {
    return step();
  } catch (cause) {
    throw new CommError('INTERNAL', `${whatIsWrong}: ${(cause as Error).message}`, { cause });
  }
}

function invalid(message: string, cause?: unknown): CommError {
  return new CommError('INVALID_ARGUMENT', message, { cause });
}
