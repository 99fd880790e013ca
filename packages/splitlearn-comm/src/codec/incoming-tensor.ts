import { CommError } from '../errors.js';
import { type DType, MAX_RANK, type Tensor } from '../tensor.js';
import type { ProtobufReader } from './protobuf.js';
import { type EncodedTensor, TensorCodec } from './tensor-codec.js';
import { dtypeFromWire } from './wire-enums.js';
import { DATA_TAG, DTYPE_TAG, ENCODING_TAG, NAME_TAG, PACKED_SHAPE_TAG, SHAPE_TAG } from './wire-tags.js';

/**
 * Decodes the elements of a tensor that is not raw, at once or in another thread.
 *
 * @param encoding - A number of the enum `Encoding` in compute.proto, or one that is not there yet.
 * @param encoded - `data` is a view on the message, not to be kept or written to.
 * @returns The raw bytes, on memory that nobody else holds.
 */
export type DecodeTensor = (encoding: number, encoded: EncodedTensor, name: string) => Uint8Array | Promise<Uint8Array>;

const codec = new TensorCodec();

/**
 * Reads a tensor and adds it to those that have been read. It is checked as soon as it is there: what comes after a
 * wrong one is not kept first.
 *
 * @returns a promise where the tensor is there only later: its name is taken until then.
 * @param owned - Whether the memory of the message may go where its tensors go. Else they get memory of their own.
 * @throws CommError `INVALID_ARGUMENT` for whatever is wrong with the tensor, and MalformedMessageError for bytes that are
 * none.
 */
export function readTensor(
  tensors: Record<string, Tensor>,
  reader: ProtobufReader,
  owned: boolean,
  decode: DecodeTensor | undefined,
): Promise<void> | undefined {
  const outerEnd = reader.end;
  const end = reader.endOfBytes();
  reader.end = end;
  let name = '';
  let dtypeNumber = 0;
  let encoding = 0;
  let rank = 0;
  const shape: number[] = [];
  let dataStart = 0;
  let dataEnd = 0;
  while (reader.position < end) {
    const tag = reader.tag();
    switch (tag) {
      case NAME_TAG:
        name = reader.text();
        break;
      case DTYPE_TAG:
        dtypeNumber = reader.int32();
        break;
      case PACKED_SHAPE_TAG: {
        const shapeEnd = reader.endOfBytes();
        reader.end = shapeEnd;
        for (; reader.position < shapeEnd; rank++) addDimension(shape, reader.int64());
        reader.end = end;
        break;
      }
      case SHAPE_TAG:
        addDimension(shape, reader.int64());
        rank++;
        break;
      case ENCODING_TAG:
        encoding = reader.int32();
        break;
      case DATA_TAG:
        dataEnd = reader.endOfBytes();
        dataStart = reader.position;
        reader.position = dataEnd;
        break;
      default:
        // What is not known yet, and padding.
        reader.skip(tag);
    }
  }
  reader.end = outerEnd;

  if (encoding !== 0 && !decode) throw invalid(`tensor '${name}' has the unknown encoding ${encoding}`);
  const dtype = dtypeFromWire(dtypeNumber, name);
  if (rank > MAX_RANK) throw invalid(`tensor '${name}' has ${rank} dimensions; at most ${MAX_RANK} are supported`);
  const { bytes } = reader;
  const view = new Uint8Array(bytes.buffer, bytes.byteOffset + dataStart, dataEnd - dataStart);
  const data =
    encoding !== 0 && decode ? decode(encoding, { dtype, shape, data: view }, name) : own(view, owned, dtype);
  if (data instanceof Uint8Array) {
    addTensor(tensors, name, codec.decode({ dtype, shape, data }, name));
    return undefined;
  }
  const later = addTensor(tensors, name, codec.decode({ dtype: 'uint8', shape: [0], data: new Uint8Array() }, name));
  return data.then((bytes) => later(codec.decode({ dtype, shape, data: bytes }, name)));
}

/** What is beyond the highest rank is counted, but not kept: a message of megabytes may be all shape. */
function addDimension(shape: number[], size: number): void {
  if (shape.length < MAX_RANK) shape.push(size);
}

function own(view: Uint8Array, owned: boolean, dtype: DType): Uint8Array {
  // An empty view would be lost with the rest of its memory when another tensor moves to another thread.
  if (view.byteLength === 0) return new Uint8Array();
  return owned || dtype === 'string' ? view : new Uint8Array(view);
}

/** Adds as `Object.fromEntries` does: a property of its own, also where the object has inherited one of that name. */
function addTensor(tensors: Record<string, Tensor>, name: string, value: Tensor): (value: Tensor) => void {
  if (Object.hasOwn(tensors, name)) throw invalid(`there are two tensors named '${name}'`);
  const set = (own: Tensor) =>
    Object.defineProperty(tensors, name, { value: own, writable: true, enumerable: true, configurable: true });
  if (name in tensors) set(value);
  else tensors[name] = value;
  return set;
}

function invalid(message: string): CommError {
  return new CommError('INVALID_ARGUMENT', message);
}
