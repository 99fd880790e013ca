import { afterEach, describe, expect, it, vi } from 'vitest';
import { collect, rejection } from '../../test/support/deferred.js';
import { GatedModel } from '../../test/support/gated-model.js';
import { modelCall } from '../../test/support/model-calls.js';
import { CommError } from '../errors.js';
import type { Model } from '../model.js';
import { type Tensors, tensor } from '../tensor.js';
import { SerialExecutor } from './serial-executor.js';

const inputs = { x: tensor(1) };

async function started(
  model: Model,
  options?: ConstructorParameters<typeof SerialExecutor>[0],
): Promise<SerialExecutor> {
  const executor = new SerialExecutor(options);
  await executor.start(model);
  return executor;
}

describe('SerialExecutor', () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it('runs one call at a time, in the order they came', async () => {
    const model = new GatedModel();
    const executor = await started(model);
    const runs = [0, 1, 2].map((index) => executor.run(inputs, modelCall({ requestId: `${index}` })));
    for (const [index, run] of runs.entries()) {
      expect(await model.at(index).begun.promise).toMatchObject({ requestId: `${index}` });
      expect(model.count).toBe(index + 1);
      model.at(index).answer.resolve({ y: tensor(index) });
      expect(await run).toMatchObject({ outputs: { y: tensor(index) } });
    }
  });

  it('says how long a run waited and took', async () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const model = new GatedModel();
    const executor = await started(model);
    const first = executor.run(inputs, modelCall());
    const second = executor.run(inputs, modelCall());
    await model.at(0).begun.promise;
    vi.advanceTimersByTime(30);
    model.at(0).answer.resolve(inputs);
    expect(await first).toMatchObject({ queueMs: 0, computeMs: 30 });
    await model.at(1).begun.promise;
    vi.advanceTimersByTime(12);
    model.at(1).answer.resolve(inputs);
    expect(await second).toMatchObject({ queueMs: 30, computeMs: 12 });
  });

  it('hands the call on to the model as it is', async () => {
    const run = vi.fn<Model['run']>(() => inputs);
    const executor = await started({ run });
    const call = modelCall({ parameters: { a: 1 }, outputs: ['y'] });
    await executor.run(inputs, call);
    expect(run).toHaveBeenCalledExactlyOnceWith(inputs, call);
  });

  it('never runs a call that is aborted in the queue, and goes on with the next', async () => {
    const model = new GatedModel();
    const executor = await started(model);
    const first = executor.run(inputs, modelCall());
    const controller = new AbortController();
    const second = executor.run(inputs, modelCall({ signal: controller.signal }));
    const third = executor.run(inputs, modelCall());
    controller.abort(new CommError('DEADLINE_EXCEEDED', 'late'));
    expect(await rejection(second)).toMatchObject({ code: 'DEADLINE_EXCEEDED', message: /the work never began/ });
    model.at(0).answer.resolve(inputs);
    await first;
    model.at(1).answer.resolve(inputs);
    await third;
    expect(model.count).toBe(2);
  });

  it('refuses more than may wait', async () => {
    const model = new GatedModel();
    const executor = await started(model, { maxQueue: 1 });
    const accepted = [executor.run(inputs, modelCall()), executor.run(inputs, modelCall())];
    expect(await rejection(executor.run(inputs, modelCall()))).toMatchObject({ reason: 'QUEUE_FULL' });
    model.at(0).answer.resolve(inputs);
    await accepted[0];
    model.at(1).answer.resolve(inputs);
    await accepted[1];
  });

  it('goes on after a run that failed, be it at once or later', async () => {
    const run = vi
      .fn<Model['run']>()
      .mockImplementationOnce(() => {
        throw new Error('at once');
      })
      .mockRejectedValueOnce(new Error('later'))
      .mockReturnValueOnce(inputs);
    const executor = await started({ run });
    expect(await rejection(executor.run(inputs, modelCall()))).toMatchObject({ message: 'at once' });
    expect(await rejection(executor.run(inputs, modelCall()))).toMatchObject({ message: 'later' });
    expect(await executor.run(inputs, modelCall())).toMatchObject({ outputs: inputs });
  });

  describe('streaming', () => {
    async function* count(_: Tensors, { parameters }: { parameters: Readonly<Record<string, unknown>> }) {
      for (let index = 0; index < Number(parameters.pieces); index++) yield { y: tensor(index) };
    }

    it('yields every piece, and holds the turn until the last was taken', async () => {
      const executor = await started({ run: () => inputs, stream: count });
      const pieces = executor.stream(inputs, modelCall({ parameters: { pieces: 3 } }))[Symbol.asyncIterator]();
      await pieces.next();
      const after = executor.run(inputs, modelCall());
      const order: string[] = [];
      void after.then(() => order.push('run'));
      await pieces.next();
      await pieces.next();
      order.push('last piece');
      expect((await pieces.next()).done).toBe(true);
      await after;
      expect(order).toEqual(['last piece', 'run']);
    });

    it('gives the turn back when its reader leaves, and ends the model’s generator', async () => {
      let ended = false;
      const executor = await started({
        run: () => inputs,
        async *stream(...call) {
          try {
            yield* count(...call);
          } finally {
            ended = true;
          }
        },
      });
      for await (const _ of executor.stream(inputs, modelCall({ parameters: { pieces: 100 } }))) break;
      expect(ended).toBe(true);
      await executor.run(inputs, modelCall());
    });

    it('gives the turn back when the model fails', async () => {
      const executor = await started({
        run: () => inputs,
        // biome-ignore lint/correctness/useYield: it fails before it could
        async *stream() {
          throw new Error('no pieces');
        },
      });
      expect(await rejection(collect(executor.stream(inputs, modelCall())))).toMatchObject({ message: 'no pieces' });
      await executor.run(inputs, modelCall());
    });

    it('is one piece where the model has only run', async () => {
      const executor = await started({ run: () => inputs });
      expect(await collect(executor.stream(inputs, modelCall()))).toMatchObject([{ outputs: inputs }]);
    });
  });

  describe('stop', () => {
    it('lets the run that has begun finish, refuses those that wait, then disposes of the model', async () => {
      const model = new GatedModel();
      const dispose = vi.fn();
      const executor = await started(Object.assign(model, { dispose }));
      const running = executor.run(inputs, modelCall());
      const waiting = executor.run(inputs, modelCall());
      const stopping = executor.stop();
      expect(await rejection(waiting)).toMatchObject({ code: 'UNAVAILABLE', reason: 'STOPPING' });
      expect(dispose).not.toHaveBeenCalled();
      model.at(0).answer.resolve(inputs);
      await running;
      await stopping;
      expect(dispose).toHaveBeenCalledOnce();
      expect(await rejection(executor.run(inputs, modelCall()))).toMatchObject({ reason: 'STOPPING' });
    });

    it('does not wait for ever for a run that was cancelled and goes on', async () => {
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
      const executor = await started({ run: () => new Promise(() => {}) });
      const controller = new AbortController();
      void executor.run(inputs, modelCall({ signal: controller.signal }));
      controller.abort();
      const stopping = executor.stop();
      await vi.runAllTimersAsync();
      await stopping;
    });

    it('throws what the model throws when it is disposed of', async () => {
      const executor = await started({
        run: () => inputs,
        dispose: () => {
          throw new Error('still in use');
        },
      });
      expect(await rejection(executor.stop())).toMatchObject({ message: 'still in use' });
    });

    it('before start does nothing', async () => {
      await new SerialExecutor().stop();
    });
  });

  it('runs one model in its life', async () => {
    const executor = await started({ run: () => inputs });
    expect(await rejection(executor.start({ run: () => inputs }))).toMatchObject({ code: 'FAILED_PRECONDITION' });
  });

  it('runs nothing before it was started', async () => {
    expect(await rejection(new SerialExecutor().run(inputs, modelCall()))).toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
  });
});
