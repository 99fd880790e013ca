import {
  type AsyncChainComputeFunction,
  AsyncGRPCComputeServer,
  AsyncLambdaComputeFunction,
  AsyncModelComputeFunction,
  type CallStatistics,
  type CallTiming,
  CommError,
  type CommErrorCode,
  type ComputeFunction,
  type ComputeResponse,
  type GRPCComputeClient,
  RemoteComputeFunction,
  SerialExecutor,
  type Tensor,
  type Tensors,
  tensor,
  WorkerExecutor,
} from '@splitlearn/comm';
import { type Loopback, loopback } from '@splitlearn/comm/testing';
import { describe, expectTypeOf, it } from 'vitest';

declare const client: GRPCComputeClient;
declare const one: Tensor;
declare const named: Tensors;

describe('compute', () => {
  it('gives a tensor for a tensor, and named tensors for named tensors', () => {
    expectTypeOf(client.compute(one)).resolves.toEqualTypeOf<Tensor>();
    expectTypeOf(client.compute(tensor([1]))).resolves.toEqualTypeOf<Tensor>();
    expectTypeOf(client.compute(tensor('text'))).resolves.toEqualTypeOf<Tensor>();
    expectTypeOf(client.compute(named)).resolves.toEqualTypeOf<Tensors>();
    expectTypeOf(client.compute({ a: one, b: tensor([true]) })).resolves.toEqualTypeOf<Tensors>();
    expectTypeOf(client.compute({})).resolves.toEqualTypeOf<Tensors>();
  });

  it('with timing does so too', () => {
    expectTypeOf(client.computeWithTiming(one)).resolves.toEqualTypeOf<{ outputs: Tensor; timing: CallTiming }>();
    expectTypeOf(client.computeWithTiming(named)).resolves.toEqualTypeOf<{ outputs: Tensors; timing: CallTiming }>();
  });

  it('takes options of one call', () => {
    expectTypeOf(
      client.compute(one, { model: 'm', parameters: { a: [1, null, { b: 'c' }] }, outputs: ['y'] }),
    ).resolves.toEqualTypeOf<Tensor>();
    expectTypeOf(
      client.compute(one, { timeoutMs: 1, signal: new AbortController().signal, requestId: 'r', metadata: { a: 'b' } }),
    ).resolves.toEqualTypeOf<Tensor>();
  });

  it('takes no numbers, no undefined options, and no parameters that are no JSON', () => {
    // @ts-expect-error: not a tensor
    client.compute([1, 2, 3]);
    // @ts-expect-error: not a tensor either
    client.compute({ a: [1, 2, 3] });
    // @ts-expect-error: leave it out instead
    client.compute(one, { timeoutMs: undefined });
    // @ts-expect-error: a function is no JSON
    client.compute(one, { parameters: { a: () => {} } });
    // @ts-expect-error: a bigint is no JSON
    client.compute(one, { parameters: { a: 1n } });
    // @ts-expect-error: no such option
    client.compute(one, { timeout: 5 });
  });
});

describe('stream', () => {
  it('takes requests from anything that can be iterated, and is one itself', () => {
    expectTypeOf(client.stream([{ inputs: named }])).toEqualTypeOf<AsyncGenerator<ComputeResponse, void>>();
    expectTypeOf(
      client.stream(
        (async function* () {
          yield { inputs: { x: one }, parameters: { a: 1 } };
        })(),
      ),
    ).toExtend<AsyncIterable<ComputeResponse>>();
    // @ts-expect-error: tensors are no requests
    client.stream([named]);
  });
});

describe('compute functions', () => {
  it('are all of one shape', () => {
    expectTypeOf<AsyncLambdaComputeFunction>().toExtend<ComputeFunction>();
    expectTypeOf<AsyncModelComputeFunction>().toExtend<ComputeFunction>();
    expectTypeOf<AsyncChainComputeFunction>().toExtend<ComputeFunction>();
    expectTypeOf<RemoteComputeFunction>().toExtend<ComputeFunction>();
    expectTypeOf<{ compute(): Promise<{ outputs: Record<string, never> }> }>().toExtend<ComputeFunction>();
  });

  it('of a lambda may be synchronous or not, and know their call', () => {
    new AsyncLambdaComputeFunction((inputs) => inputs);
    new AsyncLambdaComputeFunction(async ({ a }, { signal, request }) => {
      expectTypeOf(a).toEqualTypeOf<Tensor | undefined>();
      expectTypeOf(signal).toEqualTypeOf<AbortSignal>();
      expectTypeOf(request.inputs).toEqualTypeOf<Tensors>();
      return { b: one };
    });
    // @ts-expect-error: named tensors are wanted
    new AsyncLambdaComputeFunction(() => one);
  });

  it('of a model need an executor that can run it', () => {
    const model = { run: (inputs: Tensors) => inputs };
    new AsyncModelComputeFunction({ model });
    new AsyncModelComputeFunction({ model, executor: new SerialExecutor() });
    new AsyncModelComputeFunction({ model: './model.mjs', executor: new WorkerExecutor({ threads: 2 }) });
    // @ts-expect-error: a module cannot run in this thread
    new AsyncModelComputeFunction({ model: './model.mjs', executor: new SerialExecutor() });
    // @ts-expect-error: nor without an executor
    new AsyncModelComputeFunction({ model: './model.mjs' });
    // @ts-expect-error: an object cannot run in another thread
    new AsyncModelComputeFunction({ model, executor: new WorkerExecutor({ threads: 2 }) });
    // @ts-expect-error: the number of threads is a choice
    new WorkerExecutor({});
  });
});

describe('server and client', () => {
  it('are what the documentation says', () => {
    const server = new AsyncGRPCComputeServer({
      computeFn: new AsyncLambdaComputeFunction((inputs) => inputs),
      port: 0,
    });
    expectTypeOf(server.start()).resolves.toEqualTypeOf<number>();
    expectTypeOf(server.stop({ graceMs: 1 })).resolves.toEqualTypeOf<void>();
    expectTypeOf(server.getStatistics()).toEqualTypeOf<CallStatistics>();
    expectTypeOf(server).toExtend<AsyncDisposable>();
    expectTypeOf(client).toExtend<AsyncDisposable>();
    expectTypeOf(loopback(new RemoteComputeFunction('a:1'))).resolves.toEqualTypeOf<Loopback>();
    // @ts-expect-error: a server serves something
    new AsyncGRPCComputeServer({ port: 0 });
  });
});

describe('CommError', () => {
  it('has a code to match on', () => {
    const error: unknown = new Error();
    if (error instanceof CommError) {
      expectTypeOf(error.code).toEqualTypeOf<CommErrorCode>();
      expectTypeOf(error.retryAfterMs).toEqualTypeOf<number | undefined>();
      expectTypeOf(error.retryable).toEqualTypeOf<boolean>();
    }
    // @ts-expect-error: no such code
    new CommError('NOPE', 'x');
  });
});
