import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { varint } from '../../test/support/plain-wire.js';
import { MalformedMessageError, ProtobufReader, varintByteLength, writeVarint, writeWideVarint } from './protobuf.js';

function reader(...bytes: readonly number[]): ProtobufReader {
  return new ProtobufReader(Uint8Array.from(bytes));
}

/** A field that is skipped to its end, with its tag in front. */
function skipAll(...bytes: readonly number[]): number {
  const skipping = reader(...bytes);
  skipping.skip(skipping.tag());
  return skipping.position;
}

/** Integers, with those where a varint gets longer. */
const integers = fc.oneof(
  fc.maxSafeNat(),
  fc.tuple(fc.nat(7), fc.constantFrom(-1, 0, 1)).map(([groups, more]) => Math.max(0, 2 ** (7 * groups) + more)),
  fc.constantFrom(2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1),
);

describe('a varint', () => {
  it('is written in as many bytes as it needs, or as many as are asked for', () => {
    fc.assert(
      fc.property(integers, fc.nat(3), (value, extra) => {
        const expected = varint(value, extra);
        const minimal = varintByteLength(value);
        expect(minimal).toBe(varint(value).byteLength);
        const target = new Uint8Array(12).fill(0xee);
        expect(writeWideVarint(target, 1, value, Math.min(10, minimal + extra))).toBe(1 + expected.byteLength);
        expect(Buffer.from(target.subarray(0, 2 + expected.byteLength))).toEqual(
          Buffer.from([0xee, ...expected, 0xee]),
        );
        expect(writeVarint(target, 1, value)).toBe(1 + minimal);
        expect(Buffer.from(target.subarray(1, 1 + minimal))).toEqual(varint(value));
      }),
    );
  });

  it('is read as signed, to the nearest number, however long it is', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.nat(9), (value, extra) => {
        const bytes = [...varint(value, extra)];
        const reading = reader(...bytes, 0x55);
        // Halves that are added lose nothing more than a number has to.
        const [high, low] = [BigInt.asIntN(32, value >> 32n), BigInt.asUintN(32, value)];
        expect(reading.int64()).toBe(Number(high) * 2 ** 32 + Number(low));
        expect(reading.position).toBe(bytes.length);
        expect(reader(...bytes).int32()).toBe(Number(BigInt.asIntN(32, value)));
      }),
    );
  });

  it.each([
    ['nothing', [], '1 bytes are needed, but 0 are left (at byte 0)'],
    ['its beginning', [0x80, 0x80], '3 bytes are needed, but 2 are left (at byte 0)'],
    ['eleven bytes', [...new Array<number>(10).fill(0x80), 0], 'a number has more than 10 bytes (at byte 0)'],
  ])('that is %s is refused', (_, bytes, message) => {
    expect(() => reader(...bytes).int64()).toThrow(new MalformedMessageError(message));
  });
});

describe('a tag', () => {
  it('may have any field number up to 2^29 - 1', () => {
    expect(reader(...varint((2 ** 29 - 1) * 8 + 2)).tag()).toBe(2 ** 32 - 6);
    expect(reader(...varint(0x0a, 4)).tag()).toBe(0x0a);
    expect(() => reader(...varint(2 ** 32)).tag()).toThrow('a field number is beyond 2^29 - 1');
    for (let type = 0; type < 8; type++) expect(() => reader(type).tag()).toThrow('a field has the number 0');
  });
});

describe('bytes', () => {
  it('must be there, as many as are claimed', () => {
    expect(reader(2, 1, 1).endOfBytes()).toBe(3);
    expect(() => reader(3, 1, 1).endOfBytes()).toThrow('3 bytes are needed, but 2 are left (at byte 1)');
    expect(() => reader(...varint(2 ** 52), 1).endOfBytes()).toThrow(
      '4503599627370496 bytes are needed, but 1 are left',
    );
    expect(() => reader(...varint(-1), 1).endOfBytes()).toThrow('18446744073709552000 bytes are needed');
  });

  it('are not read beyond the end of an embedded message', () => {
    const embedded = reader(3, 1, 1, 1, 1);
    embedded.end = 3;
    expect(() => embedded.endOfBytes()).toThrow('3 bytes are needed, but 2 are left');
    const double = reader(1, 2, 3, 4, 5, 6, 7, 8);
    double.end = 7;
    expect(() => double.double()).toThrow('8 bytes are needed, but 7 are left');
  });
});

describe('text', () => {
  it('comes back as it was, short or long', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 40 }), (text) => {
        const utf8 = Buffer.from(text);
        const reading = reader(...varint(utf8.byteLength), ...utf8, 0x55);
        expect(reading.text()).toBe(text);
        expect(reading.position).toBe(reading.end - 1);
      }),
    );
  });

  it.each([
    ['a byte that begins nothing', [0xff]],
    ['a character that is cut off', [0x61, 0xe2, 0x82]],
    ['a surrogate', [0xed, 0xa0, 0x80]],
    ['a character that is longer than it need be', [0xc0, 0x80]],
  ])('with %s is refused', (_, bytes) => {
    for (const before of [[], new Array<number>(30).fill(0x61)]) {
      const all = [...before, ...bytes];
      expect(() => reader(all.length, ...all).text()).toThrow('the string at byte 1 is not UTF-8');
    }
  });
});

describe('a field that is skipped', () => {
  const nested = (depth: number) => [...new Array<number>(depth).fill(0x0b), ...new Array<number>(depth).fill(0x0c)];

  it.each([
    ['a varint', [0x08, 0xff, 0x01, 9], 3],
    ['8 bytes', [0x09, 1, 2, 3, 4, 5, 6, 7, 8, 9], 9],
    ['4 bytes', [0x0d, 1, 2, 3, 4, 9], 5],
    ['bytes', [0x0a, 2, 1, 2, 9], 4],
    ['a group', [0x0b, 0x08, 1, 0x13, 0x0d, 1, 2, 3, 4, 0x14, 0x0c, 9], 11],
    ['groups a hundred deep', nested(100), 200],
  ])('may be %s', (_, bytes, end) => {
    expect(skipAll(...bytes)).toBe(end);
  });

  it.each([
    ['of a type that is none', [0x0e], 'there is no wire type 6 (at byte 1)'],
    ['that ends a group', [0x0c], 'a group ends that did not begin (at byte 1)'],
    ['whose group is another one at its end', [0x0b, 0x14], 'a group ends that did not begin (at byte 2)'],
    ['whose group has no end', [0x0b, 0x08, 1], '1 bytes are needed, but 0 are left (at byte 3)'],
    ['of groups that are nested deeper', nested(101), 'groups are nested more than 100 deep (at byte 101)'],
    ['that is cut off', [0x09, 1, 2, 3], '8 bytes are needed, but 3 are left (at byte 1)'],
  ])('is refused when it is one %s', (_, bytes, message) => {
    expect(() => skipAll(...bytes)).toThrow(new MalformedMessageError(message));
  });
});
