import { describe, expect, it, vi } from 'vitest';
import { collect } from '../../test/support/deferred.js';
import { type ComputeRequest, callContext } from '../compute-function.js';
import type { Executor, Model } from '../model.js';
import { tensor } from '../tensor.js';
import { AsyncModelComputeFunction } from './model.js';

const outputs = { y: tensor(1) };
const executed = { outputs, queueMs: 3, computeMs: 4 };

function fakeExecutor<Source>(info?: Model['info']) {
  return {
    start: vi.fn<Executor<Source>['start']>(async () => info),
    run: vi.fn<Executor<Source>['run']>(async () => executed),
    stream: vi.fn<Executor<Source>['stream']>(async function* () {
      yield executed;
      yield { ...executed, queueMs: 0 };
    }),
    stop: vi.fn<Executor<Source>['stop']>(async () => {}),
  };
}

describe('AsyncModelComputeFunction', () => {
  it('starts its executor with the model, and stops it', async () => {
    const executor = fakeExecutor<Model>();
    const model = { run: () => outputs };
    const fn = new AsyncModelComputeFunction({ model, executor });
    await fn.setup();
    expect(executor.start).toHaveBeenCalledExactlyOnceWith(model);
    await fn.teardown();
    expect(executor.stop).toHaveBeenCalledOnce();
  });

  it.each(['./model.mjs', new URL('file:///model.mjs')])(
    'hands a module (%s) to the executor that loads it',
    async (model) => {
      const executor = fakeExecutor<string | URL>();
      await new AsyncModelComputeFunction({ model, executor }).setup();
      expect(executor.start).toHaveBeenCalledExactlyOnceWith(model);
    },
  );

  it('passes on tensors, parameters, outputs, signal and id, and says where the time went', async () => {
    const executor = fakeExecutor<Model>();
    const fn = new AsyncModelComputeFunction({ model: { run: () => outputs }, executor });
    const context = callContext({ requestId: 'r' });
    const request = { inputs: { x: tensor(2) }, parameters: { a: 1 }, outputs: ['y'] };
    expect(await fn.compute(request, context)).toEqual({ outputs, timing: { queueMs: 3, computeMs: 4 } });
    expect(executor.run).toHaveBeenCalledExactlyOnceWith(request.inputs, {
      parameters: { a: 1 },
      outputs: ['y'],
      signal: context.signal,
      requestId: 'r',
    });
    await fn.compute({ inputs: {} }, context);
    expect(executor.run).toHaveBeenLastCalledWith({}, expect.objectContaining({ parameters: {}, outputs: [] }));
  });

  it('streams all pieces of a request before it reads the next', async () => {
    const executor = fakeExecutor<Model>();
    const fn = new AsyncModelComputeFunction({ model: { run: () => outputs }, executor });
    const streamed: number[] = [];
    async function* requests(): AsyncGenerator<ComputeRequest> {
      for (let index = 0; index < 3; index++) {
        streamed.push(executor.stream.mock.calls.length);
        yield { inputs: { x: tensor(index) } };
      }
    }
    expect(await collect(fn.stream(requests(), callContext()))).toHaveLength(6);
    expect(streamed).toEqual([0, 1, 2]);
  });

  it('says what the model says of itself, under the name default', async () => {
    const info = { outputs: [{ name: 'y', dtype: 'float32' as const, shape: [] }], attributes: { engine: 'test' } };
    const fn = new AsyncModelComputeFunction({ model: { run: () => outputs }, executor: fakeExecutor<Model>(info) });
    await fn.setup();
    expect(fn.info()).toEqual({ name: '', version: '', models: [{ name: 'default', state: 'READY', ...info }] });
  });

  it('runs one call at a time where no executor is given', async () => {
    const fn = new AsyncModelComputeFunction({ model: { run: () => outputs } });
    await fn.setup();
    expect(await fn.compute({ inputs: {} }, callContext())).toMatchObject({ outputs });
    await fn.teardown();
  });

  it.each<[string, unknown, string]>([
    ['nothing', {}, 'model must be { run(inputs) { … } }'],
    ['a model without run', { model: {} }, 'model must be { run(inputs) { … } }'],
    ['a module without an executor', { model: './m.mjs' }, 'model is a module (./m.mjs): it needs an executor'],
  ])('cannot be made of %s', (_, options, message) => {
    expect(() => new AsyncModelComputeFunction(options as { model: Model })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });
});
