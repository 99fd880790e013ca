import { splitlearn } from '#proto';
import type { ModelInfo, ServiceInfo, TensorInfo } from '../compute-function.js';
import { CommError } from '../errors.js';
import type { TensorEncoding } from './encodings/tensor-encoding.js';
import { dtypeFromWire, dtypeToWire, encodingFromWire, encodingToWire } from './wire-enums.js';

// ServiceInfo, asked for once a connection: protobufjs is quick enough.

import v1 = splitlearn.comm.v1;

/** What a server says of itself on the wire. */
export interface WireServiceInfo extends ServiceInfo {
  /** The largest request or response, in bytes. */
  readonly maxMessageBytes: number;
  /** How the tensors of requests may be encoded, beside raw. */
  readonly encodings: readonly TensorEncoding[];
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
    encodings: info.encodings.filter((encoding) => encoding !== 'raw').map(encodingToWire),
  }).finish();
}

/**
 * Encodings that this version does not know are left out.
 *
 * @throws CommError `INTERNAL` for whatever is no valid answer: it is the server that is wrong.
 */
export function decodeServiceInfo(bytes: Uint8Array): WireServiceInfo {
  try {
    const message = v1.ServiceInfo.decode(bytes);
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
      encodings: message.encodings.map(encodingFromWire).filter((encoding) => encoding !== undefined),
    };
  } catch (cause) {
    const what = cause instanceof CommError ? '' : 'the bytes are no ServiceInfo: ';
    throw new CommError('INTERNAL', `the server's answer is malformed: ${what}${(cause as Error).message}`, { cause });
  }
}

function encodeTensorInfo(info: TensorInfo): v1.ITensorInfo {
  const shape = info.shape.map((size) => (typeof size === 'number' ? { size } : { symbol: size }));
  return { name: info.name, dtype: dtypeToWire(info.dtype), shape };
}

function decodeTensorInfo(message: v1.ITensorInfo): TensorInfo {
  const name = message.name ?? '';
  const shape = (message.shape ?? []).map((dimension) => dimension.symbol ?? Number(dimension.size));
  return { name, dtype: dtypeFromWire(message.dtype ?? 0, name), shape };
}
