import { google } from '#proto';
import type { ComputeRequest, ComputeResponse, ComputeTiming } from '../compute-function.js';
import { CommError } from '../errors.js';
import type { Tensor, Tensors } from '../tensor.js';
import { markMovable } from '../transfer.js';
import { type EncodedMessage, TensorMessage } from './encoded-message.js';
import { type DecodeTensor, readTensor } from './incoming-tensor.js';
import { JoinedBytes } from './joined-bytes.js';
import { RequestTail, TimingTail } from './message-tails.js';
import { type EncodeTensor, prepareTensors, textByteLength } from './outgoing-tensor.js';
import { MalformedMessageError, ProtobufReader, textFieldByteLength } from './protobuf.js';
import { fromStruct } from './struct.js';
import {
  BATCH_SIZE_TAG,
  COMPUTE_MS_TAG,
  MODEL_TAG,
  OUTPUT_ENCODING_TAG,
  OUTPUT_TAG,
  PARAMETERS_TAG,
  QUEUE_MS_TAG,
  REQUEST_ID_TAG,
  SERVER_MS_TAG,
  TENSOR_TAG,
  TIMING_TAG,
} from './wire-tags.js';

// The one place where protobuf bytes become requests and responses, and these become protobuf bytes. Written by hand, so
// that tensors are written once, straight into where they are sent from, and read where they lie. What is neither large
// nor on every call is left to protobufjs: parameters, and ServiceInfo.

export { type EncodedMessage, toBytes } from './encoded-message.js';
export type { DecodeTensor } from './incoming-tensor.js';
export type { EncodeTensor, WireData } from './outgoing-tensor.js';

export interface EncodeOptions {
  /**
   * Where in its buffer the message will begin, modulo 8: 0 for a message of an Exchange, 5 behind gRPC's prefix. The data
   * of tensors is aligned for it. Default: 0.
   */
  readonly base?: 0 | 5;
  /** How the elements of each tensor are encoded. Default: raw. */
  readonly encode?: EncodeTensor;
  /** Of a request: how the outputs may be encoded, a number of the enum `Encoding`. Default: raw. */
  readonly outputEncoding?: number;
}

export interface DecodeOptions {
  /** Called for every tensor that is not raw; `ready` says when those that it promises are there. Default: refused. */
  readonly decode?: DecodeTensor;
}

export interface DecodedRequest {
  readonly request: ComputeRequest;
  /** Absent where the caller gave none. */
  readonly requestId?: string;
  /** How the outputs may be encoded, a number of the enum `Encoding`. */
  readonly outputEncoding: number;
  /** Where it is there, the request's tensors are not until it resolves. */
  readonly ready?: Promise<void>;
}

export interface DecodedResponse {
  readonly response: ComputeResponse;
  readonly timing: ServerTiming;
  /** Where it is there, the response's tensors are not until it resolves. */
  readonly ready?: Promise<void>;
}

/** Timing as it comes back from a server. */
export interface ServerTiming extends ComputeTiming {
  /** Milliseconds from the request's arrival at the server to its answer: queue, compute and all between. */
  readonly serverMs: number;
}

/** Up to this size, received messages share memory, as Node's own small buffers do. */
export const SHARED_MESSAGE_BYTES = 4096;

/** What gRPC puts in front of a message. */
const GRPC_PREFIX_BYTES = 5;

/** @throws CommError `INVALID_ARGUMENT` for what is not a valid request. */
export function encodeRequest(request: ComputeRequest, requestId: string, options: EncodeOptions = {}): EncodedMessage {
  const { base = 0, encode, outputEncoding = 0 } = options;
  const model = request.model ?? '';
  const requestIdBytes = textByteLength(requestId, 'the request id');
  const modelBytes = textByteLength(model, 'model');
  const headBytes = textFieldByteLength(requestIdBytes) + textFieldByteLength(modelBytes);
  const tensors = prepareTensors(request.inputs, base + headBytes, encode);
  const tail = new RequestTail(request, outputEncoding);
  return new TensorMessage(requestId, requestIdBytes, model, modelBytes, tensors, tail);
}

/**
 * The request's tensors are movable: whoever is given it is the only one that holds them. A buffer that the message has
 * for itself, but for gRPC's prefix, is theirs from now on; out of any other they are copied.
 *
 * @throws CommError `INVALID_ARGUMENT` for whatever is not a valid request, and what `decode` throws.
 */
export function decodeRequest(bytes: Uint8Array, options: DecodeOptions = {}): DecodedRequest {
  try {
    return readRequest(bytes, options.decode);
  } catch (cause) {
    throw notA('ComputeRequest', cause);
  }
}

/**
 * @throws CommError `INTERNAL` for whatever is not a valid response: it is the compute function that is wrong. What `encode`
 * throws is passed on, unless it is `INVALID_ARGUMENT`.
 */
export function encodeResponse(
  response: ComputeResponse,
  requestId: string,
  serverMs: number,
  options: EncodeOptions = {},
): EncodedMessage {
  try {
    const { base = 0, encode } = options;
    const model = response?.model ?? '';
    const requestIdBytes = textByteLength(requestId, 'the request id');
    const modelBytes = textByteLength(model, 'model');
    const headBytes = textFieldByteLength(requestIdBytes) + textFieldByteLength(modelBytes);
    const tensors = prepareTensors(response?.outputs, base + headBytes, encode);
    const tail = new TimingTail(response.timing, serverMs);
    return new TensorMessage(requestId, requestIdBytes, model, modelBytes, tensors, tail);
  } catch (cause) {
    throw blame('the compute function gave no valid response', cause);
  }
}

/**
 * The response's tensors are movable, as those of {@link decodeRequest} are.
 *
 * @throws CommError `INTERNAL` for whatever is not a valid response: it is the server that is wrong. What `decode` throws
 * is passed on, unless it is `INVALID_ARGUMENT`.
 */
export function decodeResponse(bytes: Uint8Array, options: DecodeOptions = {}): DecodedResponse {
  try {
    return readResponse(bytes, options.decode);
  } catch (cause) {
    throw blame("the server's answer is malformed", notA('ComputeResponse', cause));
  }
}

function readRequest(bytes: Uint8Array, decode: DecodeTensor | undefined) {
  const reader = new ProtobufReader(bytes);
  const owned = isOwnBuffer(bytes);
  const shared = isShared(bytes);
  let requestId = '';
  let model = '';
  const inputs: Record<string, Tensor> = {};
  let ready: Promise<void> | undefined;
  let parameters: JoinedBytes | undefined;
  const outputs: string[] = [];
  let outputEncoding = 0;
  while (reader.position < reader.end) {
    const tag = reader.tag();
    switch (tag) {
      case REQUEST_ID_TAG:
        requestId = reader.text();
        break;
      case MODEL_TAG:
        model = reader.text();
        break;
      case TENSOR_TAG:
        ready = both(ready, readTensor(inputs, reader, owned || shared, decode));
        break;
      case PARAMETERS_TAG: {
        const end = reader.endOfBytes();
        parameters ??= new JoinedBytes();
        parameters.add(bytes, reader.position, end);
        reader.position = end;
        break;
      }
      case OUTPUT_TAG:
        outputs.push(reader.text());
        break;
      case OUTPUT_ENCODING_TAG:
        outputEncoding = reader.int32();
        break;
      default:
        reader.skip(tag);
    }
  }
  const rest = {
    inputs: settle(inputs, shared),
    parameters: parameters ? readParameters(parameters) : {},
    outputs,
  };
  const request: ComputeRequest = model === '' ? rest : { model, ...rest };
  const decoded = requestId === '' ? { request, outputEncoding } : { request, requestId, outputEncoding };
  if (!ready) return decoded;
  const settled = ready.then(() => {
    settle(inputs, shared);
  });
  return { ...decoded, ready: settled };
}

function readResponse(bytes: Uint8Array, decode: DecodeTensor | undefined) {
  const reader = new ProtobufReader(bytes);
  const owned = isOwnBuffer(bytes);
  const shared = isShared(bytes);
  let model = '';
  const outputs: Record<string, Tensor> = {};
  let ready: Promise<void> | undefined;
  const serverTiming: ReadTiming = { queueMs: 0, computeMs: 0, serverMs: 0 };
  while (reader.position < reader.end) {
    const tag = reader.tag();
    switch (tag) {
      case REQUEST_ID_TAG:
        // Nothing is done with it, but it is to be text.
        reader.text();
        break;
      case MODEL_TAG:
        model = reader.text();
        break;
      case TENSOR_TAG:
        ready = both(ready, readTensor(outputs, reader, owned || shared, decode));
        break;
      case TIMING_TAG:
        readTiming(reader, serverTiming);
        break;
      default:
        reader.skip(tag);
    }
  }
  const { queueMs, computeMs, batchSize } = serverTiming;
  const timing: ComputeTiming = batchSize === undefined ? { queueMs, computeMs } : { queueMs, computeMs, batchSize };
  const rest = { outputs: settle(outputs, shared), timing };
  const response: ComputeResponse = model === '' ? rest : { model, ...rest };
  if (!ready) return { response, timing: serverTiming };
  const settled = ready.then(
    () => {
      settle(outputs, shared);
    },
    (cause) => {
      throw blame("the server's answer is malformed", cause);
    },
  );
  return { response, timing: serverTiming, ready: settled };
}

/** Once they are there, tensors belong to whoever is given them, but not where they share memory with other messages. */
function settle(tensors: Tensors, shared: boolean): Tensors {
  return shared ? tensors : markMovable(tensors);
}

/** Tensors that are decoded elsewhere are there when all of them are. */
function both(first: Promise<void> | undefined, second: Promise<void> | undefined): Promise<void> | undefined {
  const all = first && second ? Promise.all([first, second]).then(() => {}) : (first ?? second);
  // Nobody waits for it where the rest of the message turns out to be malformed; unhandled, it would end the process.
  all?.catch(() => {});
  return all;
}

/** A {@link ServerTiming} that is still being read. */
type ReadTiming = { -readonly [Key in keyof ServerTiming]: ServerTiming[Key] };

function readTiming(reader: ProtobufReader, timing: ReadTiming): void {
  const outerEnd = reader.end;
  const end = reader.endOfBytes();
  reader.end = end;
  while (reader.position < end) {
    const tag = reader.tag();
    if (tag === QUEUE_MS_TAG) timing.queueMs = reader.double();
    else if (tag === COMPUTE_MS_TAG) timing.computeMs = reader.double();
    else if (tag === SERVER_MS_TAG) timing.serverMs = reader.double();
    else if (tag === BATCH_SIZE_TAG) readBatchSize(reader, timing);
    else reader.skip(tag);
  }
  reader.end = outerEnd;
}

/** 0 is as good as absent, also where it comes after another, as protobuf has it. */
function readBatchSize(reader: ProtobufReader, timing: ReadTiming): void {
  const batchSize = reader.int32() >>> 0;
  if (batchSize === 0) delete timing.batchSize;
  else timing.batchSize = batchSize;
}

function readParameters(parameters: JoinedBytes): NonNullable<ComputeRequest['parameters']> {
  try {
    return fromStruct(google.protobuf.Struct.decode(parameters.bytes));
  } catch (cause) {
    throw new MalformedMessageError((cause as Error).message, { cause });
  }
}

/**
 * Whether the buffer holds nothing but the message and what gRPC puts in front. Tensors then are views on it, which may
 * take it along to another thread. Node cuts small buffers out of a pool that many share.
 */
function isOwnBuffer(bytes: Uint8Array): boolean {
  return bytes.buffer.byteLength - bytes.byteLength <= GRPC_PREFIX_BYTES;
}

/**
 * Whether a message lies in memory that others share, and is so small that its tensors stay there: copying it to another
 * thread takes no longer than moving it, and memory of its own would cost more than all the rest of the call.
 */
function isShared(bytes: Uint8Array): boolean {
  return bytes.byteLength <= SHARED_MESSAGE_BYTES && bytes.buffer.byteLength > bytes.byteLength;
}

/** Says what kind of message the bytes should have been. Other errors have said all there is to say. */
function notA(type: string, cause: unknown): unknown {
  if (!(cause instanceof MalformedMessageError)) return cause;
  return new CommError('INVALID_ARGUMENT', `the bytes are no ${type}: ${cause.message}`, { cause });
}

/** What went wrong in a step that is not the caller's. A limit that was reached, or a missing encoding, stays just that. */
function blame(whatIsWrong: string, cause: unknown): CommError {
  if (cause instanceof CommError && cause.code !== 'INVALID_ARGUMENT') return cause;
  return new CommError('INTERNAL', `${whatIsWrong}: ${(cause as Error).message}`, { cause });
}
