import { describe, expectTypeOf, it } from 'vitest';
import {
  assertTensor,
  type DType,
  isDType,
  type Tensor,
  type TensorData,
  type TensorDataByDType,
  type TensorLike,
  type Tensors,
  tensor,
} from '../src/tensor.js';

describe('Tensor', () => {
  it('is narrowed by its dtype, to the array of that dtype', () => {
    const any = {} as Tensor;
    expectTypeOf(any.data).toEqualTypeOf<TensorData>();
    expectTypeOf(any.shape).toEqualTypeOf<readonly number[]>();
    if (any.dtype === 'float32') expectTypeOf(any.data).toEqualTypeOf<Float32Array>();
    else if (any.dtype === 'int64') expectTypeOf(any.data).toEqualTypeOf<BigInt64Array>();
    else if (any.dtype === 'float16') expectTypeOf(any.data).toEqualTypeOf<Uint16Array>();
    else if (any.dtype === 'bool') expectTypeOf(any.data).toEqualTypeOf<Uint8Array>();
    else if (any.dtype === 'string') expectTypeOf(any.data).toEqualTypeOf<readonly string[]>();
    else expectTypeOf<Extract<typeof any, { dtype: 'float32' | 'bool' | 'string' }>>().toBeNever();
  });

  it('leaves nothing over when every dtype was handled', () => {
    const { dtype } = {} as Tensor;
    switch (dtype) {
      case 'float32':
      case 'float64':
      case 'float16':
      case 'bfloat16':
      case 'int8':
      case 'uint8':
      case 'int16':
      case 'uint16':
      case 'int32':
      case 'uint32':
      case 'int64':
      case 'uint64':
      case 'bool':
      case 'string':
        break;
      default:
        expectTypeOf(dtype).toBeNever();
    }
    expectTypeOf<keyof TensorDataByDType>().toEqualTypeOf<DType>();
  });

  it('of some dtypes is a Tensor, and not the other way round', () => {
    expectTypeOf<Tensor<'int8'>>().toExtend<Tensor>();
    expectTypeOf<Tensor<'int8'>>().toExtend<Tensor<'int8' | 'uint8'>>();
    expectTypeOf<Tensor>().not.toExtend<Tensor<'int8'>>();
    expectTypeOf<Tensor<'int8' | 'uint8'>>().toEqualTypeOf<Tensor<'int8'> | Tensor<'uint8'>>();
    expectTypeOf<Record<string, Tensor<'int8'>>>().toExtend<Tensors>();
  });

  it('may not pair a dtype with the array of another, and may not be changed', () => {
    // @ts-expect-error: int8 elements are in an Int8Array
    const wrong: Tensor = { dtype: 'int8', shape: [1], data: new Uint8Array(1) };
    // @ts-expect-error: there is no such dtype
    const unknown: Tensor = { dtype: 'complex64', shape: [1], data: new Float32Array(1) };
    const made = tensor(new Float32Array(1));
    // @ts-expect-error: readonly
    made.dtype = 'float32';
    // @ts-expect-error: readonly
    made.shape.push(1);
    // @ts-expect-error: readonly
    tensor('a').data[0] = 'b';
    expectTypeOf([wrong, unknown]).toEqualTypeOf<Tensor[]>();
  });
});

describe('tensor', () => {
  it('knows the dtype of the arrays that are used most, with a shape or without', () => {
    expectTypeOf(tensor(new Float32Array(2))).toEqualTypeOf<Tensor<'float32'>>();
    expectTypeOf(tensor(new Float64Array(2), [2])).toEqualTypeOf<Tensor<'float64'>>();
    expectTypeOf(tensor(new BigInt64Array(2), [1, 2])).toEqualTypeOf<Tensor<'int64'>>();
    expectTypeOf(tensor(new BigInt64Array(2)).data).toEqualTypeOf<BigInt64Array>();
  });

  it('is a Tensor of whatever dtype where only the values tell it', () => {
    expectTypeOf(tensor(1)).toEqualTypeOf<Tensor>();
    expectTypeOf(tensor([[1, 2]])).toEqualTypeOf<Tensor>();
    expectTypeOf(tensor([1n], [1])).toEqualTypeOf<Tensor>();
    expectTypeOf(tensor(true, undefined, undefined)).toEqualTypeOf<Tensor>();
    expectTypeOf(tensor(new Int32Array(2))).toEqualTypeOf<Tensor>();
    expectTypeOf(tensor(Buffer.from('a'))).toEqualTypeOf<Tensor>();
    expectTypeOf(tensor({} as TensorLike)).toEqualTypeOf<Tensor>();
  });

  it('knows strings by themselves, but not of an array that may be empty and then is float32', () => {
    expectTypeOf(tensor('a')).toEqualTypeOf<Tensor<'string'>>();
    expectTypeOf(tensor(['a', 'b'], [1, 2])).toEqualTypeOf<Tensor<'string'>>();
    expectTypeOf(tensor(['a'] as const)).toEqualTypeOf<Tensor<'string'>>();
    expectTypeOf(tensor([])).toEqualTypeOf<Tensor>();
    expectTypeOf(tensor([] as string[])).toEqualTypeOf<Tensor>();
    expectTypeOf(tensor([] as string[], undefined, 'string')).toEqualTypeOf<Tensor<'string'>>();
    expectTypeOf(tensor([['a'], ['b']])).toEqualTypeOf<Tensor>();
  });

  it('is of the dtype that is asked for', () => {
    expectTypeOf(tensor([1, 2], [2], 'float16')).toEqualTypeOf<Tensor<'float16'>>();
    expectTypeOf(tensor(new Uint8Array(2), undefined, 'bool')).toEqualTypeOf<Tensor<'bool'>>();
    expectTypeOf(tensor(new Float32Array(2), [2], 'float32').data).toEqualTypeOf<Float32Array>();
    expectTypeOf(tensor([1], [1], {} as 'int8' | 'int64')).toEqualTypeOf<Tensor<'int8' | 'int64'>>();
    expectTypeOf(tensor([1], [1], {} as DType)).toEqualTypeOf<Tensor>();
    expectTypeOf(tensor([1], undefined, {} as DType | undefined)).toEqualTypeOf<Tensor>();
  });

  it('takes readonly arrays, as deep as one likes', () => {
    expectTypeOf<readonly (readonly (readonly number[])[])[]>().toExtend<TensorLike>();
    expectTypeOf(tensor([[[1]], [[2]]] as const, [2] as const)).toEqualTypeOf<Tensor>();
  });

  it('takes nothing else', () => {
    // @ts-expect-error: nothing to make a tensor of
    tensor();
    // @ts-expect-error: no value of a tensor
    tensor(null);
    // @ts-expect-error: no value of a tensor
    tensor([undefined]);
    // @ts-expect-error: no value of a tensor
    tensor({ dtype: 'int8', shape: [1], data: new Int8Array(1) });
    // @ts-expect-error: no dtype
    tensor(new DataView(new ArrayBuffer(4)));
    // @ts-expect-error: typed arrays are no rows
    tensor([new Float32Array(2), new Float32Array(2)]);
    // @ts-expect-error: unknown dtype
    tensor([1], [1], 'complex64');
    // @ts-expect-error: a shape is an array
    tensor([1], 1);
    // @ts-expect-error: dimensions are numbers
    tensor([1], [1n]);
  });
});

describe('isDType and assertTensor', () => {
  it('narrow an unknown value, and take a Tensor', () => {
    const value: unknown = undefined;
    if (isDType(value)) expectTypeOf(value).toEqualTypeOf<DType>();
    expectTypeOf(assertTensor).parameter(0).toEqualTypeOf<Tensor>();
    expectTypeOf(assertTensor).returns.toBeVoid();
  });
});
