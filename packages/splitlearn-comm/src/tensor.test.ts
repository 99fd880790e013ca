import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CommError } from './errors.js';
import { bfloat16ToFloat32, float16ToFloat32 } from './half.js';
import {
  assertTensor,
  bytesPerElement,
  type DType,
  elementCount,
  isDType,
  MAX_RANK,
  type Tensor,
  type TensorData,
  type TensorLike,
  TYPED_ARRAYS,
  tensor,
} from './tensor.js';

const dtypes = [...Object.keys(TYPED_ARRAYS), 'string'] as DType[];
const typedArrays = Object.entries(TYPED_ARRAYS) as [
  Exclude<DType, 'string'>,
  (typeof TYPED_ARRAYS)[keyof typeof TYPED_ARRAYS],
][];
const ranges = {
  int8: [-128n, 127n],
  uint8: [0n, 255n],
  int16: [-32768n, 32767n],
  uint16: [0n, 65535n],
  int32: [-(2n ** 31n), 2n ** 31n - 1n],
  uint32: [0n, 2n ** 32n - 1n],
  int64: [-(2n ** 63n), 2n ** 63n - 1n],
  uint64: [0n, 2n ** 64n - 1n],
  bool: [0n, 1n],
} as const;
const integerTypes = Object.entries(ranges) as [keyof typeof ranges, readonly [bigint, bigint]][];

/** Expects a CommError that blames the caller, whose message has the given text or matches the pattern. */
function expectInvalid(act: () => unknown, message: string | RegExp): void {
  let error: unknown;
  try {
    act();
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toBeInstanceOf(CommError);
  expect(error).toMatchObject({
    code: 'INVALID_ARGUMENT',
    message: typeof message === 'string' ? expect.stringContaining(message) : expect.stringMatching(message),
  });
}

/** What a caller without TypeScript may pass. */
const untyped = tensor as (data: unknown, shape?: unknown, dtype?: unknown) => Tensor;

describe('bytesPerElement and isDType', () => {
  it.each([
    ['float32', 4],
    ['float64', 8],
    ['float16', 2],
    ['bfloat16', 2],
    ['int8', 1],
    ['uint8', 1],
    ['int16', 2],
    ['uint16', 2],
    ['int32', 4],
    ['uint32', 4],
    ['int64', 8],
    ['uint64', 8],
    ['bool', 1],
    ['string', undefined],
  ] as const)('know %s, of %s bytes', (dtype, bytes) => {
    expect(isDType(dtype)).toBe(true);
    expect(bytesPerElement(dtype)).toBe(bytes);
    expect(dtypes).toContain(dtype);
    expect(dtypes).toHaveLength(14);
  });

  it.each(['', 'float', 'Float32', 'toString', '__proto__', 'constructor', undefined, null, 1, ['float32'], {}])(
    'do not take %j for a dtype',
    (value) => {
      expect(isDType(value)).toBe(false);
    },
  );
});

describe('elementCount', () => {
  it.each([
    [[], 1],
    [[5], 5],
    [[2, 3, 4], 24],
    [[0], 0],
    [[3, 0, 2], 0],
    [[0, Number.MAX_SAFE_INTEGER], 0],
    [[Number.MAX_SAFE_INTEGER], Number.MAX_SAFE_INTEGER],
    [new Array(MAX_RANK).fill(1), 1],
  ])('of %j is %d', (shape, count) => {
    expect(elementCount(shape)).toBe(count);
  });

  it.each([
    [-1, '-1'],
    [1.5, '1.5'],
    [Number.NaN, 'NaN'],
    [Infinity, 'Infinity'],
    [2 ** 53, '9007199254740992'],
    [null, 'null'],
    [undefined, 'undefined'],
    ['3', '3'],
    [3n, '3'],
    [Symbol('n'), 'Symbol(n)'],
  ])('refuses the dimension %s, and shows it', (size, text) => {
    const message = `tensor 'x' has shape [2,${text}]: every dimension must be an integer from 0 to 2^53 - 1`;
    expectInvalid(() => elementCount([2, size as number], 'x'), message);
    expectInvalid(() => elementCount([0, size as number]), 'every dimension must be an integer');
  });

  it('refuses the holes of a sparse shape', () => {
    expectInvalid(() => elementCount(new Array(2)), '[undefined,undefined]: every dimension must be an integer');
  });

  it('refuses a product beyond 2^53 - 1, even where a later dimension is 0', () => {
    const message = "tensor 'x' has shape [9007199254740991,2,0]: its size overflows";
    expectInvalid(() => elementCount([Number.MAX_SAFE_INTEGER, 2, 0], 'x'), message);
    expectInvalid(() => elementCount([2 ** 30, 2 ** 30]), 'its size overflows');
    expectInvalid(() => elementCount(new Array(MAX_RANK).fill(Number.MAX_SAFE_INTEGER)), 'its size overflows');
  });

  it('refuses more than 32 dimensions', () => {
    expect(MAX_RANK).toBe(32);
    expectInvalid(() => elementCount(new Array(33).fill(1), 'x'), "tensor 'x' has 33 dimensions; at most 32");
    expectInvalid(() => elementCount(new Array(1e8)), '100000000 dimensions');
  });

  it('is the exact product, or refused, for any shape without 0', () => {
    const size = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }));
    fc.assert(
      fc.property(fc.array(size, { maxLength: 8 }), (shape) => {
        const product = shape.reduce((all, size) => all * BigInt(size), 1n);
        if (product <= BigInt(Number.MAX_SAFE_INTEGER)) expect(elementCount(shape)).toBe(Number(product));
        else expectInvalid(() => elementCount(shape), 'overflows');
      }),
    );
  });
});

describe('assertTensor', () => {
  const check = (value: unknown) => () => assertTensor(value as Tensor, 'x');

  it.each(typedArrays)('takes %s data, and no other array for it', (dtype, array) => {
    expect(check({ dtype, shape: [2, 2], data: new array(4) })).not.toThrow();
    expect(check({ dtype, shape: [], data: new array(1) })).not.toThrow();
    expect(check({ dtype, shape: [0, 7], data: new array(0) })).not.toThrow();
    const others = [...typedArrays.map(([, other]) => new other(1)).filter((other) => !(other instanceof array))];
    for (const data of [
      ...others,
      [1],
      ['a'],
      new DataView(new ArrayBuffer(8)),
      new ArrayBuffer(8),
      '1',
      null,
      undefined,
    ]) {
      expectInvalid(check({ dtype, shape: [1], data }), `'x' of dtype ${dtype} must hold its data as ${array.name}`);
    }
  });

  it('takes text for strings, empty text and frozen arrays too', () => {
    expect(check({ dtype: 'string', shape: [2], data: Object.freeze(['', 'ä𝄞']) })).not.toThrow();
    expectInvalid(check({ dtype: 'string', shape: [1], data: new Uint8Array(1) }), 'must hold its data as Array');
    expectInvalid(check({ dtype: 'string', shape: [1], data: 'a' }), 'must hold its data as Array');
  });

  it.each([
    [['a', 1], 'a number at index 1'],
    [[null, 'a'], 'a object at index 0'],
    [['a', new String('b')], 'a object at index 1'],
    [new Array(2), 'a undefined at index 0'],
    [Object.assign(new Array(2), { 0: 'a' }), 'a undefined at index 1'],
  ])('refuses strings that are none: %o', (data, message) => {
    expectInvalid(check({ dtype: 'string', shape: [2], data }), `tensor 'x' of dtype string has ${message}`);
  });

  it('names the tensor, its shape and both sizes when they disagree', () => {
    const message = "tensor 'x' of shape [2,3] needs 6 elements, but its data has 5";
    expectInvalid(check({ dtype: 'int8', shape: [2, 3], data: new Int8Array(5) }), message);
    expectInvalid(
      check({ dtype: 'int8', shape: [2, 3], data: new Int8Array(7) }),
      'needs 6 elements, but its data has 7',
    );
    expectInvalid(check({ dtype: 'string', shape: [], data: [] }), 'of shape [] needs 1 elements, but its data has 0');
    expectInvalid(check({ dtype: 'int8', shape: [2 ** 40], data: new Int8Array(1) }), 'needs 1099511627776 elements');
  });

  it('checks the shape as elementCount does', () => {
    expectInvalid(check({ dtype: 'int8', shape: [-1], data: new Int8Array(1) }), "tensor 'x' has shape [-1]");
    expectInvalid(check({ dtype: 'int8', shape: new Array(33).fill(1), data: new Int8Array(1) }), '33 dimensions');
  });

  it.each([null, undefined, 1, 'x', [], {}, { dtype: 'int8', data: new Int8Array(1) }, { dtype: 'int8', shape: 1 }])(
    'refuses %j, which is no tensor',
    (value) => {
      expectInvalid(check(value), "'x' is no tensor: pass { dtype, shape, data }");
    },
  );

  it.each([
    ['complex64', 'complex64'],
    ['__proto__', '__proto__'],
    [undefined, 'undefined'],
    [1n, '1'],
    [Symbol('d'), 'Symbol(d)'],
  ])('refuses the unknown dtype %s', (dtype, text) => {
    const message = `tensor 'x' has the unknown dtype '${text}'`;
    expectInvalid(check({ dtype, shape: [1], data: new Float32Array(1) }), message);
  });

  it('refuses data whose memory was transferred away', () => {
    const data = new Float32Array(2);
    structuredClone(data.buffer, { transfer: [data.buffer] });
    expectInvalid(check({ dtype: 'float32', shape: [2], data }), 'needs 2 elements, but its data has 0');
  });
});

describe('tensor of a typed array', () => {
  it.each(typedArrays.filter(([dtype]) => !['bool', 'float16', 'bfloat16'].includes(dtype)))(
    'is a vector of %s, and keeps the array',
    (dtype, array) => {
      const data = new array(6);
      expect(untyped(data)).toEqual({ dtype, shape: [6], data });
      expect(untyped(data).data).toBe(data);
      expect(untyped(data, [2, 3])).toEqual({ dtype, shape: [2, 3], data });
      expect(untyped(new array(0)).shape).toEqual([0]);
    },
  );

  it('is of the dtype that is asked for, where the array can hold it', () => {
    const bytes = Uint8Array.of(0, 1);
    const words = Uint16Array.of(0, 0x3c00);
    expect(tensor(bytes, undefined, 'bool')).toEqual({ dtype: 'bool', shape: [2], data: bytes });
    expect(tensor(words, [1, 2], 'float16').data).toBe(words);
    expect(tensor(words, [1, 2], 'bfloat16')).toEqual({ dtype: 'bfloat16', shape: [1, 2], data: words });
    expectInvalid(() => tensor(bytes, undefined, 'int8'), 'must hold its data as Int8Array');
    expectInvalid(() => tensor(new Float32Array(1), undefined, 'float16'), 'must hold its data as Uint16Array');
    expectInvalid(() => tensor(new Float32Array(1), undefined, 'string'), 'must hold its data as Array');
    expectInvalid(() => untyped(new Float32Array(1), undefined, 'float'), "unknown dtype 'float'");
  });

  it('keeps views of shared and larger buffers as they are', () => {
    const view = new Float32Array(new SharedArrayBuffer(32), 8, 4);
    expect(tensor(view, [2, 2]).data).toBe(view);
  });

  it('takes a Buffer for the bytes that it is, without a copy', () => {
    const buffer = Buffer.from([1, 2, 3, 4]);
    const { dtype, shape, data } = tensor(buffer, [2, 2]);
    expect([dtype, shape]).toEqual(['uint8', [2, 2]]);
    expect(data).toBe(buffer);
    expectInvalid(() => tensor(buffer, [1], 'float32'), 'must hold its data as Float32Array');
  });

  it('refuses the views that hold no dtype, and bare buffers', () => {
    expectInvalid(() => untyped(new DataView(new ArrayBuffer(4))), 'a DataView holds no dtype that a tensor can have');
    expectInvalid(() => untyped(new Uint8ClampedArray(4)), 'a Uint8ClampedArray holds no dtype that a tensor can have');
    expectInvalid(() => untyped(new ArrayBuffer(4)), 'not object');
  });

  it('refuses a shape that has another number of elements', () => {
    expectInvalid(() => tensor(new Float32Array(4), [2, 3]), 'of shape [2,3] needs 6 elements, but its data has 4');
    expectInvalid(() => tensor(new Float32Array(0), []), 'of shape [] needs 1 elements, but its data has 0');
    expectInvalid(() => tensor(new Float32Array(2), [-1, -2]), 'every dimension must be an integer');
    expectInvalid(() => tensor(new Float32Array(1), [2 ** 52, 2 ** 52]), 'overflows');
    expectInvalid(() => untyped(new Float32Array(1), 1), 'is no tensor');
  });
});

describe('tensor of plain values', () => {
  it.each<[DType, number[], TensorLike, TensorData]>([
    ['float32', [], 1.5, Float32Array.of(1.5)],
    ['int64', [], 7n, BigInt64Array.of(7n)],
    ['bool', [], true, Uint8Array.of(1)],
    ['string', [], 'hello', ['hello']],
    ['string', [], '', ['']],
    ['float32', [4], [1, -0, Infinity, NaN], Float32Array.of(1, -0, Infinity, NaN)],
    ['int64', [2], [1n, -1n], BigInt64Array.of(1n, -1n)],
    ['bool', [2], [true, false], Uint8Array.of(1, 0)],
    ['string', [2], ['a', 'b'], ['a', 'b']],
    [
      'float32',
      [2, 3],
      [
        [1, 2, 3],
        [4, 5, 6],
      ],
      Float32Array.of(1, 2, 3, 4, 5, 6),
    ],
    ['string', [2, 1, 1], [[['a']], [['b']]], ['a', 'b']],
    ['float32', [0], [], new Float32Array(0)],
    ['float32', [2, 0], [[], []], new Float32Array(0)],
    ['float32', [2, 1, 0], [[[]], [[]]], new Float32Array(0)],
  ])('infers %s and the shape %j of %o', (dtype, shape, data, elements) => {
    expect(tensor(data)).toEqual({ dtype, shape, data: elements });
  });

  it('has the shape of the nesting and the elements in row-major order, for any shape', () => {
    const nested = (shape: readonly number[], next: () => number): TensorLike[] | number => {
      const [length, ...rest] = shape;
      return length === undefined ? next() : Array.from({ length }, () => nested(rest, next) as number);
    };
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 5 }), (shape) => {
        let count = 0;
        const made = tensor(nested(shape, () => count++) as TensorLike);
        const visible = shape.includes(0) ? shape.slice(0, shape.indexOf(0) + 1) : shape;
        expect(made).toEqual({
          dtype: 'float32',
          shape: visible,
          data: Float32Array.from({ length: count }, (_, i) => i),
        });
      }),
    );
  });

  it('has the shape it is given, where that has as many elements', () => {
    expect(tensor([1, 2, 3, 4], [2, 2]).shape).toEqual([2, 2]);
    expect(
      tensor(
        [
          [1, 2],
          [3, 4],
        ],
        [4],
      ).shape,
    ).toEqual([4]);
    expect(tensor(5, [1, 1]).shape).toEqual([1, 1]);
    expect(tensor([5], []).shape).toEqual([]);
    expect(tensor([], [0, 3]).shape).toEqual([0, 3]);
    expectInvalid(() => tensor([1, 2, 3], [2, 2]), 'of shape [2,2] needs 4 elements, but its data has 3');
    expectInvalid(() => tensor([], []), 'of shape [] needs 1 elements, but its data has 0');
    expectInvalid(() => tensor(1, [2 ** 53]), 'every dimension must be an integer');
    expectInvalid(() => tensor([1], [Number.MAX_SAFE_INTEGER]), 'needs 9007199254740991 elements');
  });

  it('copies an array of strings', () => {
    const words = ['a', 'b'];
    const { data } = tensor(words, [2], 'string');
    words[0] = 'changed';
    expect(data).toEqual(['a', 'b']);
  });

  it.each(dtypes)('may be empty for dtype %s', (dtype) => {
    const data = dtype === 'string' ? [] : new TYPED_ARRAYS[dtype](0);
    expect(tensor([[], []], undefined, dtype)).toEqual({ dtype, shape: [2, 0], data });
  });

  it.each<[string, TensorLike, string]>([
    ['rows of two lengths', [[1, 2], [3]], 'at depth 1 there is an array of 2, and also an array of 1'],
    ['a row after an empty one', [[], [1]], 'at depth 1 there is an array of 0, and also an array of 1'],
    ['a value among rows', [[1], 2], 'at depth 1 there is an array of 1, and also a single value'],
    ['a row among values', [1, [2]], 'at depth 1 there is a single value, and also an array of 1'],
    ['an empty row among values', [1, []], 'at depth 1 there is a single value, and also an array of 0'],
    ['a row that is nested deeper', [[[1]], [[[2]]]], 'at depth 3 there is a single value, and also an array of 1'],
    ['text as long as the rows', [['a', 'b'], 'ab'], 'at depth 1 there is an array of 2, and also a single value'],
  ])('refuses ragged nesting: %s', (_, data, message) => {
    expectInvalid(() => tensor(data), `the nested arrays are ragged: ${message}`);
  });

  it.each<[unknown, string]>([
    [[1, 2, '3'], 'the data mixes number and string (at index 2)'],
    [
      [
        [1, 2],
        [3n, 4],
      ],
      'the data mixes number and bigint (at index 2)',
    ],
    [[true, 1], 'the data mixes boolean and number (at index 1)'],
    [[1, null], 'the data mixes number and object (at index 1)'],
    [[1, undefined], 'the data mixes number and undefined (at index 1)'],
  ])('refuses mixed elements: %o', (data, message) => {
    for (const dtype of [undefined, ...dtypes]) expectInvalid(() => untyped(data, undefined, dtype), message);
  });

  it.each<[string, unknown, string]>([
    ['nothing', undefined, 'undefined'],
    ['null', null, 'object'],
    ['a symbol', Symbol('s'), 'symbol'],
    ['a function', () => 1, 'function'],
    ['an object', { length: 1, 0: 1 }, 'object'],
    ['a Date', new Date(0), 'object'],
    ['an undefined element', [undefined], 'undefined'],
    ['a null element', [[null]], 'object'],
    ['typed arrays as rows', [new Float32Array(2), new Float32Array(2)], 'object'],
    ['holes', new Array(3), 'undefined'],
  ])('refuses %s as an element', (_, data, kind) => {
    const message = `a tensor has elements of type number, bigint, boolean, string; not ${kind}`;
    for (const dtype of [undefined, ...dtypes]) expectInvalid(() => untyped(data, undefined, dtype), message);
  });

  it('refuses holes between elements', () => {
    const sparse = Object.assign(new Array(3), { 0: 1, 2: 3 });
    expectInvalid(() => untyped(sparse), 'the data mixes number and undefined (at index 1)');
  });

  it('refuses an unknown dtype, even without elements', () => {
    for (const data of [[1], [], 'a']) {
      expectInvalid(() => untyped(data, undefined, 'complex64'), "unknown dtype 'complex64'");
      expectInvalid(() => untyped(data, undefined, Symbol('d')), "unknown dtype 'Symbol(d)'");
      expectInvalid(() => untyped(data, undefined, '__proto__'), "unknown dtype '__proto__'");
    }
  });

  it('refuses text for any dtype but string, be it a numeral or not', () => {
    for (const dtype of dtypes.filter((dtype) => dtype !== 'string')) {
      for (const text of ['1', '', 'x', 'true']) {
        expectInvalid(() => tensor([text], undefined, dtype), `a string cannot be an element of dtype ${dtype}`);
      }
    }
  });

  it('refuses anything but text for dtype string', () => {
    expectInvalid(() => tensor([1], undefined, 'string'), 'a number cannot be an element of dtype string');
    expectInvalid(() => tensor(1n, undefined, 'string'), 'a bigint cannot be an element of dtype string');
    expectInvalid(() => tensor([[true]], undefined, 'string'), 'a boolean cannot be an element of dtype string');
  });

  it('makes 1 and 0 of booleans for every numeric dtype', () => {
    for (const [dtype, array] of typedArrays) {
      const one = { float16: 0x3c00, bfloat16: 0x3f80 }[dtype as string] ?? 1;
      const expected = new array(2);
      expected[0] = expected instanceof BigInt64Array || expected instanceof BigUint64Array ? BigInt(one) : one;
      expect(tensor([true, false], undefined, dtype)).toEqual({ dtype, shape: [2], data: expected });
    }
  });

  describe.each(integerTypes)('of dtype %s', (dtype, [min, max]) => {
    const array = TYPED_ARRAYS[dtype];
    const inside = fc.bigInt({ min, max });
    const outside = fc.oneof(fc.bigInt({ max: min - 1n }), fc.bigInt({ min: max + 1n }));
    const isSafe = (value: bigint) => BigInt.asIntN(54, value) === value && Number.isSafeInteger(Number(value));

    it('keeps every integer that fits, bigint or number', () => {
      fc.assert(
        fc.property(fc.array(inside, { minLength: 1 }), (values) => {
          const made = tensor(values, undefined, dtype);
          expect(made.data).toBeInstanceOf(array);
          expect([...(made.data as Iterable<number | bigint>)].map(BigInt)).toEqual(values);
          if (values.every(isSafe)) expect(tensor(values.map(Number), undefined, dtype)).toEqual(made);
        }),
      );
    });

    it('keeps its least and its greatest value', () => {
      expect([...(tensor([min, max], undefined, dtype).data as Iterable<number | bigint>)].map(BigInt)).toEqual([
        min,
        max,
      ]);
    });

    it('refuses integers that do not fit, and says which and where', () => {
      for (const value of [min - 1n, max + 1n]) {
        const message = `${value} at index 1 does not fit dtype ${dtype}`;
        expectInvalid(() => tensor([min, value], undefined, dtype), message);
        if (isSafe(value)) expectInvalid(() => tensor([0, Number(value)], undefined, dtype), message);
      }
      fc.assert(
        fc.property(outside, (value) => {
          expectInvalid(() => tensor(value, undefined, dtype), `${value} at index 0 does not fit dtype ${dtype}`);
        }),
      );
    });

    it('refuses numbers that are no exact integers', () => {
      const reason =
        array.BYTES_PER_ELEMENT === 8 ? 'is no exact integer; use a bigint' : `does not fit dtype ${dtype}`;
      for (const value of [0.5, -0.5, 1e-9, Number.NaN, Infinity, -Infinity, 2 ** 53, 2 ** 64, -(2 ** 70)]) {
        expectInvalid(() => tensor([0, value], undefined, dtype), `${value} at index 1 ${reason}`);
      }
    });

    it('makes 0 of -0', () => {
      expect(tensor(-0, undefined, dtype)).toEqual(tensor(0n, undefined, dtype));
    });
  });

  it('takes bigints for floating-point dtypes, which round them', () => {
    expect(tensor([2n ** 70n, 2n ** 24n + 1n], [2], 'float32').data).toEqual(Float32Array.of(2 ** 70, 2 ** 24));
    expect(tensor(2n ** 53n + 1n, [], 'float64').data).toEqual(Float64Array.of(2 ** 53));
    expect(tensor([1n, 70000n], [2], 'float16').data).toEqual(Uint16Array.of(0x3c00, 0x7c00));
  });

  it('keeps every double in float64, and the nearest float32 in float32', () => {
    fc.assert(
      fc.property(fc.array(fc.double(), { minLength: 1 }), (values) => {
        expect(tensor(values, undefined, 'float64').data).toEqual(Float64Array.from(values));
        expect(tensor(values).data).toEqual(Float32Array.from(values));
      }),
    );
  });

  it('rounds numbers to float16 and bfloat16 once, not by way of float32', () => {
    const above16 = 1 + 2 ** -11 + 2 ** -40; // above the middle of 1 and the next float16; as a float32, on it
    const above8 = 1 + 2 ** -8 + 2 ** -40;
    expect(tensor([1, above16, -above16], undefined, 'float16').data).toEqual(Uint16Array.of(0x3c00, 0x3c01, 0xbc01));
    expect(tensor([1, above8, -above8], undefined, 'bfloat16').data).toEqual(Uint16Array.of(0x3f80, 0x3f81, 0xbf81));
    const values = [0.1, -0, 65504, 1e6, 1e-8, Number.NaN];
    const wide16 = float16ToFloat32(tensor(values, undefined, 'float16').data);
    expect(wide16).toEqual(Float32Array.of(0.0999755859375, -0, 65504, Infinity, 0, Number.NaN));
    const wide8 = bfloat16ToFloat32(tensor(values, undefined, 'bfloat16').data);
    expect(wide8).toEqual(Float32Array.of(0.10009765625, -0, 65536, 999424, 172 * 2 ** -34, Number.NaN));
  });

  describe('nested deeply', () => {
    type Nest = number | readonly Nest[];
    const wrap = (depth: number): Nest => {
      let data: Nest = 1;
      for (let level = 0; level < depth; level++) data = [data];
      return data;
    };

    it('may have 32 dimensions, and no more', () => {
      expect(tensor(wrap(32)).shape).toEqual(new Array(32).fill(1));
      for (const depth of [33, 100_000]) {
        expectInvalid(() => tensor(wrap(depth)), 'the data is nested more than 32 arrays deep');
      }
      expectInvalid(() => tensor([1, wrap(100_000)]), 'ragged');
    });

    it('may not contain itself', () => {
      const cyclic: unknown[] = [];
      cyclic.push(cyclic);
      expectInvalid(() => untyped(cyclic), 'the data is nested more than 32 arrays deep');
      expectInvalid(() => untyped([1, cyclic]), 'ragged');
    });
  });

  it.each<[string, TensorLike, DType?]>([
    ['numbers', new Array(1e6).fill(0)],
    ['rows of numbers', new Array(1e3).fill(new Array(1e3).fill(0))],
    ['token ids', new Array(1e6).fill(1), 'int64'],
    ['numbers for float16', new Array(1e6).fill(0.1), 'float16'],
    ['strings', new Array(1e6).fill('a')],
  ])('takes a million %s in a moment', (_, data, dtype) => {
    const start = performance.now();
    expect(tensor(data, undefined, dtype as DType).data.length).toBe(1e6);
    expect(performance.now() - start).toBeLessThan(1500);
  });
});
