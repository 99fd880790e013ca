import { assertTensor, type DType, type Model, type Tensors } from '@splitlearn/comm/model';
import { describe, expect, it } from 'vitest';
import { warmUp, zeros } from './onnx-warm-up.js';

const dtypes: DType[] = [
  ...(['float32', 'float64', 'float16', 'bfloat16', 'bool', 'string'] as const),
  ...(['int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64'] as const),
];

function model(run: (inputs: Tensors) => Tensors, shape: (number | string)[] = ['batch', 2]): Model {
  return { run, info: { inputs: [{ name: 'x', dtype: 'float32', shape }] } };
}

describe('the warm-up', () => {
  it.each(dtypes)('has zeros of dtype %s', (dtype) => {
    const { x } = zeros([{ name: 'x', dtype, shape: [2, 'n', 1] }]) ?? {};
    assertTensor(x as NonNullable<typeof x>);
    expect(x).toMatchObject({ dtype, shape: [2, 1, 1] });
    expect(Array.from(x?.data as ArrayLike<unknown>, (value) => (value === '' ? 0 : Number(value)))).toEqual([0, 0]);
  });

  it('is one run', async () => {
    const runs: Tensors[] = [];
    await warmUp(
      model((inputs) => {
        runs.push(inputs);
        return {};
      }),
    );
    expect(runs).toEqual([{ x: { dtype: 'float32', shape: [1, 2], data: new Float32Array(2) } }]);
  });

  it('may fail', async () => {
    const fails = model(() => {
      throw new Error('zeros are not for me');
    });
    expect(await warmUp(fails)).toBeUndefined();
  });

  it('is left out where it would take much memory', async () => {
    const never = model(() => expect.fail('it ran'), ['batch', 2 ** 20, 17]);
    expect(await warmUp(never)).toBeUndefined();
    expect(zeros(never.info?.inputs ?? [])).toBeUndefined();
  });
});
