import type { DType, JsonValue, Tensor, Tensors } from '@splitlearn/comm';
import fc from 'fast-check';

// What fast-check draws from. Written without the code under test: the arrays of the dtypes are listed here again.

const ARRAYS = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
} as const;

export const NUMERIC_DTYPES = Object.keys(ARRAYS) as (keyof typeof ARRAYS)[];
export const DTYPES: readonly DType[] = [...NUMERIC_DTYPES, 'string'];

/** Any text that UTF-8 can say, with the characters that software stumbles over. */
export const text: fc.Arbitrary<string> = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom('', '\0', '\uFEFF', '\uFFFD', 'ß', '日本語', '🙂🙂', 'e\u0301', '\u{10FFFF}'),
);

/** Names, with those that an object has already. */
export const name: fc.Arbitrary<string> = fc.oneof(
  text,
  fc.constantFrom('input', '__proto__', 'constructor', 'toString', 'hasOwnProperty', 'length', '0', 'dtype', 'then'),
);

const MAX_ELEMENTS = 64;

/** Shapes of 0 to 8 dimensions, some of them empty. */
export const shape: fc.Arbitrary<number[]> = fc
  .array(
    fc.oneof({ weight: 12, arbitrary: fc.integer({ min: 1, max: 5 }) }, { weight: 1, arbitrary: fc.constant(0) }),
    {
      maxLength: 8,
    },
  )
  .map((sizes) => {
    let count = 1;
    return sizes.map((size) => {
      const kept = count * size > MAX_ELEMENTS ? 1 : size;
      count *= kept;
      return kept;
    });
  });

/** A tensor of any dtype and any bits, NaN payloads and -0 among them, on its own memory or somewhere in a larger one. */
export const tensor: fc.Arbitrary<Tensor> = fc.tuple(fc.constantFrom(...DTYPES), shape).chain(([dtype, sizes]) => {
  const count = sizes.reduce((product, size) => product * size, 1);
  if (dtype === 'string') {
    return fc.array(text, { minLength: count, maxLength: count }).map((data) => ({ dtype, shape: sizes, data }));
  }
  const array = ARRAYS[dtype];
  const byteLength = count * array.BYTES_PER_ELEMENT;
  const byte = dtype === 'bool' ? fc.nat(1) : fc.oneof(fc.nat(255), fc.constantFrom(0x00, 0x7f, 0x80, 0xf0, 0xff));
  return fc
    .tuple(fc.array(byte, { minLength: byteLength, maxLength: byteLength }), fc.nat(3))
    .map(([bytes, elementsBefore]) => {
      const before = elementsBefore * array.BYTES_PER_ELEMENT;
      const memory = Uint8Array.from([...new Array<number>(before).fill(0xaa), ...bytes, 0xaa]);
      return { dtype, shape: sizes, data: new array(memory.buffer, before, count) } as Tensor;
    });
});

export const tensors: fc.Arbitrary<Tensors> = fc
  .uniqueArray(fc.tuple(name, tensor), { selector: ([key]) => key, maxLength: 4 })
  .map((entries) => Object.fromEntries(entries));

/** JSON objects as `parameters` may hold them. */
export const parameters: fc.Arbitrary<Record<string, JsonValue>> = fc.dictionary(
  name,
  fc.letrec<{ value: JsonValue }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4, withCrossShrink: true },
      fc.constant(null),
      fc.boolean(),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      text,
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(name, tie('value'), { maxKeys: 3 }),
    ),
  })).value,
  { maxKeys: 4 },
);

/** A tensor in a form that two of them can be compared by, to the bit. */
export function bits({ dtype, shape: sizes, data }: Tensor) {
  const elements =
    dtype === 'string' ? [...data] : Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex');
  return { dtype, shape: [...sizes], array: data.constructor.name, elements };
}

/** The same for named tensors. A list, because a name may be `__proto__`. */
export function allBits(named: Tensors) {
  return Object.entries(named).map(([key, value]) => [key, bits(value)] as const);
}

/** JSON as text that two values can be compared by: it tells -0 from 0, and has no opinion on prototypes. */
export function canonical(value: JsonValue): string {
  return JSON.stringify(value, (_, item: JsonValue) => (Object.is(item, -0) ? '-0' : item));
}

/** A tensor of nothing but zeros, or empty texts. */
export function zeros(dtype: DType, sizes: readonly number[]): Tensor {
  const count = sizes.reduce((product, size) => product * size, 1);
  const data = dtype === 'string' ? new Array<string>(count).fill('') : new ARRAYS[dtype](count);
  return { dtype, shape: sizes, data } as Tensor;
}
