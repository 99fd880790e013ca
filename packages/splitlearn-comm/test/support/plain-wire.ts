// The protobuf encoding by the letter of its specification, and without the code under test.

/** The wire types by which each field can be read. */
export type FieldTypes = ReadonlyMap<number, readonly number[]>;

export const REQUEST_TYPES = typesByField([2], [2], [2], [2], [2], [0]);
export const RESPONSE_TYPES = typesByField([2], [2], [2], [2]);
export const TENSOR_TYPES = typesByField([2], [0], [0, 2], [0], [2], [2]);
export const TIMING_TYPES = typesByField([1], [1], [1], [0]);

function typesByField(...types: readonly (readonly number[])[]): FieldTypes {
  return new Map(types.map((type, index) => [index + 1, type]));
}

/** A varint; `extra` bytes longer than it need be, but of ten bytes at most. */
export function varint(value: number | bigint, extra = 0): Buffer {
  const bytes: number[] = [];
  let left = BigInt.asUintN(64, BigInt(value));
  for (; left >= 0x80n; left >>= 7n) bytes.push(Number(left & 0x7fn) | 0x80);
  bytes.push(Number(left));
  const length = Math.min(10, bytes.length + extra);
  for (let at = bytes.length; at < length; at++) {
    bytes[at - 1] = (bytes[at - 1] as number) | 0x80;
    bytes.push(0);
  }
  return Buffer.from(bytes);
}

/**
 * A message in its plainest form: no unknown fields, varints as short as can be, `parameters` in one part. Throws for what
 * is no message.
 */
export function plainest(bytes: Buffer, kind: 'request' | 'response'): Buffer {
  const known = kind === 'request' ? REQUEST_TYPES : RESPONSE_TYPES;
  const parameters: Buffer[] = [];
  const kept: Buffer[] = [];
  for (const { number, type, value } of knownFields(bytes, known)) {
    if (kind === 'request' && number === 4) parameters.push(value as Buffer);
    else if (number === 3) kept.push(plainField(number, type, plainFields(value as Buffer, TENSOR_TYPES)));
    else if (number === 4) kept.push(plainField(number, type, plainFields(value as Buffer, TIMING_TYPES)));
    else kept.push(plainField(number, type, value));
  }
  if (parameters.length > 0) kept.push(plainField(4, 2, Buffer.concat(parameters)));
  return Buffer.concat(kept);
}

function plainFields(bytes: Buffer, known: FieldTypes): Buffer {
  const shape = known === TENSOR_TYPES ? 3 : undefined;
  return Buffer.concat(
    knownFields(bytes, known).map(({ number, type, value }) =>
      plainField(number, type, number === shape && type === 2 ? plainVarints(value as Buffer) : value),
    ),
  );
}

function plainVarints(bytes: Buffer): Buffer {
  const values: Buffer[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const { value, end } = readVarint(bytes, at);
    values.push(varint(value));
    at = end;
  }
  return Buffer.concat(values);
}

function plainField(number: number, type: number, value: Buffer | bigint): Buffer {
  const tag = varint(number * 8 + type);
  if (typeof value === 'bigint') return Buffer.concat([tag, varint(value)]);
  return Buffer.concat(type === 2 ? [tag, varint(value.byteLength), value] : [tag, value]);
}

function knownFields(bytes: Buffer, known: FieldTypes) {
  const fields: { number: number; type: number; value: Buffer | bigint }[] = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const { number, type, value, end } = readField(bytes, at);
    if (known.get(number)?.includes(type)) fields.push({ number, type, value });
    at = end;
  }
  return fields;
}

function readField(bytes: Buffer, at: number): { number: number; type: number; value: Buffer | bigint; end: number } {
  const tag = readVarint(bytes, at);
  const [number, type] = [Number(tag.value >> 3n), Number(tag.value & 7n)];
  if (number < 1 || number >= 2 ** 29) throw new Error('no field number');
  const fixed = (start: number, length: number) => {
    if (length > bytes.byteLength - start) throw new Error('cut off');
    return { number, type, value: bytes.subarray(start, start + length), end: start + length };
  };
  if (type === 0) {
    const { value, end } = readVarint(bytes, tag.end);
    return { number, type, value, end };
  }
  if (type === 1) return fixed(tag.end, 8);
  if (type === 5) return fixed(tag.end, 4);
  if (type === 2) {
    const { value, end } = readVarint(bytes, tag.end);
    return fixed(end, Number(value));
  }
  if (type !== 3) throw new Error('no type');
  let inner = tag.end;
  for (;;) {
    const last = readVarint(bytes, inner);
    if (last.value === tag.value + 1n) return fixed(last.end, 0);
    inner = readField(bytes, inner).end;
  }
}

function readVarint(bytes: Buffer, at: number): { value: bigint; end: number } {
  let value = 0n;
  for (let index = 0; index < 10; index++) {
    const byte = bytes[at + index];
    if (byte === undefined) throw new Error('cut off');
    value |= BigInt(byte & 0x7f) << BigInt(7 * index);
    if (byte < 0x80) return { value: BigInt.asUintN(64, value), end: at + index + 1 };
  }
  throw new Error('a varint of more than ten bytes');
}
