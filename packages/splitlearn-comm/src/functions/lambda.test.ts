import { describe, expect, it, vi } from 'vitest';
import { rejection } from '../../test/support/deferred.js';
import { callContext } from '../compute-function.js';
import { tensor } from '../tensor.js';
import { AsyncLambdaComputeFunction, type Lambda } from './lambda.js';

describe('AsyncLambdaComputeFunction', () => {
  it('gives the function the tensors, and the context with the whole request', async () => {
    const lambda = vi.fn<Lambda>(({ x }) => ({ y: x ?? tensor(0) }));
    const request = { inputs: { x: tensor(1) }, parameters: { a: 1 } };
    const context = callContext({ requestId: 'r' });
    const response = await new AsyncLambdaComputeFunction(lambda).compute(request, context);
    expect(response).toEqual({ outputs: { y: tensor(1) } });
    expect(lambda).toHaveBeenCalledExactlyOnceWith(request.inputs, { ...context, request });
  });

  it('waits for a function that takes time', async () => {
    const fn = new AsyncLambdaComputeFunction(async (inputs) => inputs);
    expect(await fn.compute({ inputs: { x: tensor(1) } }, callContext())).toEqual({ outputs: { x: tensor(1) } });
  });

  it('rejects with what the function throws', async () => {
    const fn = new AsyncLambdaComputeFunction(() => {
      throw new RangeError('mine');
    });
    expect(await rejection(fn.compute({ inputs: {} }, callContext()))).toMatchObject({
      name: 'RangeError',
      message: 'mine',
    });
  });

  it('is made of a function', () => {
    expect(() => new AsyncLambdaComputeFunction({} as Lambda)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: 'fn must be a function of tensors; it is object' }),
    );
  });
});
