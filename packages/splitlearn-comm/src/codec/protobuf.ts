// The protobuf encoding (https://protobuf.dev/programming-guides/encoding/), as far as the messages on the hot path need
// it. Writing is in two steps: sizes first, then one pass over a target that is large enough.

/** The low three bits of a tag: what follows it. */
const WireType = { VARINT: 0, FIXED64: 1, BYTES: 2, GROUP: 3, END_GROUP: 4, FIXED32: 5 } as const;

/** As many levels of groups as protobuf's other implementations go down. Nobody writes groups; anybody can send them. */
const MAX_GROUP_DEPTH = 100;

const MAX_VARINT_BYTES = 10;
const TWO_TO_32 = 2 ** 32;

/** Up to here text is quicker read and written character by character than by a call that leaves JavaScript. */
const MAX_SHORT_TEXT_BYTES = 12;

const utf8Encoder = new TextEncoder();
// Fatal, because replacement characters would lose data silently; ignoreBOM, because a BOM is data like any other.
const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const double = new Float64Array(1);
const doubleBytes = new Uint8Array(double.buffer);

/** Says that bytes are no protobuf message. Does not leave the codec, which adds what kind of message it should be. */
export class MalformedMessageError extends Error {}

/** The bytes of an integer from 0 to 2^53 − 1 as a varint. */
export function varintByteLength(value: number): number {
  let bytes = 1;
  for (let left = value; left >= 0x80; left = Math.floor(left / 0x80)) bytes++;
  return bytes;
}

/** Writes an integer from 0 to 2^53 − 1; gives the position behind it. */
export function writeVarint(target: Uint8Array, position: number, value: number): number {
  let at = position;
  let left = value;
  // Bit operations would cut off what is above 32 bits.
  for (; left >= 2 ** 31; left = Math.floor(left / 0x80)) target[at++] = (left % 0x80) | 0x80;
  for (; left >= 0x80; left >>>= 7) target[at++] = (left & 0x7f) | 0x80;
  target[at++] = left;
  return at;
}

/** Writes an integer in as many bytes as are asked for, which may be more than it needs. */
export function writeWideVarint(target: Uint8Array, position: number, value: number, byteLength: number): number {
  const end = position + byteLength;
  let at = writeVarint(target, position, value);
  if (at === end) return end;
  target[at - 1] = (target[at - 1] as number) | 0x80;
  while (at < end - 1) target[at++] = 0x80;
  target[at] = 0;
  return end;
}

/** The bytes of a field of text, tag and length included: none for the empty one, as proto3 has it. */
export function textFieldByteLength(textBytes: number): number {
  return textBytes === 0 ? 0 : 1 + varintByteLength(textBytes) + textBytes;
}

/** Writes a field of text whose tag has one byte, unless the text is empty; gives the position behind it. */
export function writeTextField(
  target: Uint8Array,
  position: number,
  tag: number,
  text: string,
  textBytes: number,
): number {
  if (textBytes === 0) return position;
  target[position] = tag;
  return writeText(target, writeVarint(target, position + 1, textBytes), text, textBytes);
}

/** Writes well-formed text of a known length as UTF-8; gives the position behind it. */
function writeText(target: Uint8Array, position: number, text: string, textBytes: number): number {
  const end = position + textBytes;
  // As many bytes as UTF-16 units: that is ASCII.
  if (textBytes === text.length && textBytes <= 4 * MAX_SHORT_TEXT_BYTES) {
    for (let index = 0; index < textBytes; index++) target[position + index] = text.charCodeAt(index);
  } else {
    utf8Encoder.encodeInto(text, target.subarray(position, end));
  }
  return end;
}

/** Writes the eight bytes of a double; gives the position behind them. */
export function writeDouble(target: Uint8Array, position: number, value: number): number {
  double[0] = value;
  target.set(doubleBytes, position);
  return position + 8;
}

/**
 * Reads a message field by field, from `position` to `end`; an embedded message is read by setting `end` to its end for
 * that time. Trusts nothing: whatever is not there, or cannot be, is a {@link MalformedMessageError}.
 */
export class ProtobufReader {
  readonly bytes: Uint8Array;
  position = 0;
  end: number;
  // The two halves of the last long varint, here so that reading one allocates nothing.
  #low = 0;
  #high = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.end = bytes.byteLength;
  }

  /** A field's number and wire type, as they are on the wire: `number * 8 + type`. */
  tag(): number {
    const tag = this.#varint();
    if (this.#high !== 0) throw this.#malformed('a field number is beyond 2^29 - 1');
    if (tag < 8) throw this.#malformed('a field has the number 0');
    return tag;
  }

  /** The low 32 bits of a varint, signed: how protobuf reads an enum. */
  int32(): number {
    return this.#varint() | 0;
  }

  /** A signed 64-bit varint, as the nearest number. */
  int64(): number {
    const low = this.#varint();
    return this.#high === 0 ? low : (this.#high | 0) * TWO_TO_32 + low;
  }

  double(): number {
    const position = this.#advance(8);
    for (let index = 0; index < 8; index++) doubleBytes[index] = this.bytes[position + index] as number;
    return double[0] as number;
  }

  /** A length, and checks that so many bytes are there; gives the position behind them. */
  endOfBytes(): number {
    const low = this.#varint();
    const length = this.#high === 0 ? low : this.#high * TWO_TO_32 + low;
    if (length > this.end - this.position) throw this.#truncated(length);
    return this.position + length;
  }

  /** A string, which must be UTF-8. */
  text(): string {
    const end = this.endOfBytes();
    const start = this.position;
    this.position = end;
    if (end - start <= MAX_SHORT_TEXT_BYTES) {
      let text = '';
      let at = start;
      for (; at < end; at++) {
        const byte = this.bytes[at] as number;
        if (byte >= 0x80) break;
        text += String.fromCharCode(byte);
      }
      if (at === end) return text;
    }
    try {
      return utf8Decoder.decode(this.bytes.subarray(start, end));
    } catch {
      throw new MalformedMessageError(`the string at byte ${start} is not UTF-8`);
    }
  }

  /** Passes over the value of a field that is of no interest. */
  skip(tag: number, depth = 0): void {
    switch (tag & 7) {
      case WireType.VARINT:
        this.#varint();
        return;
      case WireType.FIXED64:
        this.#advance(8);
        return;
      case WireType.BYTES:
        this.position = this.endOfBytes();
        return;
      case WireType.GROUP:
        this.#skipGroup(tag, depth + 1);
        return;
      case WireType.FIXED32:
        this.#advance(4);
        return;
      case WireType.END_GROUP:
        throw this.#malformed('a group ends that did not begin');
      default:
        throw this.#malformed(`there is no wire type ${tag & 7}`);
    }
  }

  #skipGroup(begin: number, depth: number): void {
    if (depth > MAX_GROUP_DEPTH) throw this.#malformed(`groups are nested more than ${MAX_GROUP_DEPTH} deep`);
    const end = begin - WireType.GROUP + WireType.END_GROUP;
    for (let tag = this.tag(); tag !== end; tag = this.tag()) this.skip(tag, depth);
  }

  /** Gives the low 32 bits and leaves the high ones in `#high`. */
  #varint(): number {
    const { bytes, end } = this;
    let at = this.position;
    if (at < end) {
      const byte = bytes[at] as number;
      if (byte < 0x80) {
        this.position = at + 1;
        this.#high = 0;
        return byte;
      }
    }
    this.#low = 0;
    this.#high = 0;
    for (let shift = 0; shift < 7 * MAX_VARINT_BYTES; shift += 7) {
      if (at === end) throw this.#truncated(end - this.position + 1);
      const byte = bytes[at++] as number;
      const bits = byte & 0x7f;
      if (shift < 28) this.#low |= bits << shift;
      else if (shift > 28) this.#high |= bits << (shift - 32);
      else {
        // The fifth byte has bits on both sides.
        this.#low |= bits << 28;
        this.#high = bits >>> 4;
      }
      if (byte < 0x80) {
        this.position = at;
        this.#high >>>= 0;
        return this.#low >>> 0;
      }
    }
    throw this.#malformed(`a number has more than ${MAX_VARINT_BYTES} bytes`);
  }

  /** Passes over some bytes; gives the position in front of them. */
  #advance(length: number): number {
    const { position } = this;
    if (length > this.end - position) throw this.#truncated(length);
    this.position = position + length;
    return position;
  }

  #truncated(needed: number): MalformedMessageError {
    return this.#malformed(`${needed} bytes are needed, but ${this.end - this.position} are left`);
  }

  #malformed(what: string): MalformedMessageError {
    return new MalformedMessageError(`${what} (at byte ${this.position})`);
  }
}
