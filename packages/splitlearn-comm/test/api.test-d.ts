import {
  type AsyncChainComputeFunction,
  AsyncComputeServicer,
  AsyncGRPCComputeServer,
  AsyncLambdaComputeFunction,
  AsyncModelComputeFunction,
  type AuthorizedCall,
  type Balancing,
  type CallStatistics,
  type CallTiming,
  type ClientTlsOptions,
  CommError,
  type CommErrorCode,
  type CompressedTensor,
  CompressedTensorCodec,
  type ComputeFunction,
  type ComputeResponse,
  type ConnectionLimits,
  type ConnectionStatistics,
  type ExchangeLimitOptions,
  ExponentialBackoff,
  GRPCComputeClient,
  type GRPCComputeClientOptions,
  type HealthStatus,
  type Pem,
  RemoteComputeFunction,
  SerialExecutor,
  type ServerLimits,
  supportedEncodings,
  type Tensor,
  TensorCodec,
  type TensorEncoding,
  type Tensors,
  tensor,
  type WireServiceInfo,
  WorkerExecutor,
} from '@splitlearn/comm';
import {
  type FaultConditions,
  FaultRelay,
  type FaultRelayOptions,
  type FaultStatistics,
  type Loopback,
  loopback,
} from '@splitlearn/comm/testing';
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

  it('takes whether the call may run twice', () => {
    expectTypeOf(client.compute(one, { idempotent: true })).resolves.toEqualTypeOf<Tensor>();
    expectTypeOf(client.call({ inputs: named }, { idempotent: true })).resolves.toEqualTypeOf<ComputeResponse>();
    // @ts-expect-error: true or false
    client.compute(one, { idempotent: 'yes' });
    // @ts-expect-error: which model is part of a whole request
    client.call({ inputs: named }, { model: 'm' });
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

describe('a client', () => {
  it('is made for one server, or for several', () => {
    new GRPCComputeClient('a:1');
    new GRPCComputeClient(['a:1', 'b:1'] as const, { balancing: 'round-robin' });
    expectTypeOf<Balancing>().toEqualTypeOf<'least-outstanding' | 'round-robin'>();
    expectTypeOf(GRPCComputeClient).constructorParameters.toExtend<[string | readonly string[], unknown?]>();
    // @ts-expect-error: a server somewhere
    new GRPCComputeClient();
    // @ts-expect-error: no such way
    new GRPCComputeClient('a:1', { balancing: 'random' });
  });

  it('may be told about TLS and its token', () => {
    new GRPCComputeClient('a:1', { tls: {}, token: 'secret' });
    new GRPCComputeClient('a:1', { tls: { ca: 'PEM', cert: Buffer.of(), key: new Uint8Array(), serverName: 'b' } });
    expectTypeOf<ClientTlsOptions['ca']>().toEqualTypeOf<Pem | undefined>();
    // @ts-expect-error: a server's option
    new GRPCComputeClient('a:1', { tls: { clientCa: 'PEM' } });
    // @ts-expect-error: false is not a way to leave it out
    new GRPCComputeClient('a:1', { tls: false });
    // @ts-expect-error: tokens are a server's
    new GRPCComputeClient('a:1', { tokens: ['secret'] });
  });

  it('may be told how tensors travel', () => {
    new GRPCComputeClient('a:1', { encoding: 'auto' });
    expectTypeOf<GRPCComputeClientOptions['encoding']>().toEqualTypeOf<TensorEncoding | 'auto' | undefined>();
    expectTypeOf<TensorEncoding>().toEqualTypeOf<'raw' | 'float16' | 'bfloat16' | 'int8' | 'gzip' | 'zstd'>();
    // @ts-expect-error: no such encoding
    new GRPCComputeClient('a:1', { encoding: 'lz4' });
  });

  it('may be told how to reach a server, and how often to try', () => {
    new GRPCComputeClient('a:1', { exchange: false, connectTimeoutMs: 1, keepAliveMs: Number.POSITIVE_INFINITY });
    new GRPCComputeClient('a:1', { retry: new ExponentialBackoff() });
    new GRPCComputeClient('a:1', {
      retry: { nextDelayMs: (attempt, error) => (error.retryable ? attempt : undefined) },
    });
    // @ts-expect-error: a strategy, not a number
    new GRPCComputeClient('a:1', { retry: 3 });
  });

  it('tells what a server says of itself', () => {
    expectTypeOf(client.getServiceInfo()).resolves.toEqualTypeOf<WireServiceInfo>();
    expectTypeOf<WireServiceInfo['encodings']>().toEqualTypeOf<readonly TensorEncoding[]>();
    expectTypeOf(client.healthCheck()).resolves.toEqualTypeOf<HealthStatus>();
  });
});

describe('a server', () => {
  const computeFn = new AsyncLambdaComputeFunction((inputs) => inputs);

  it('may be told who may call', () => {
    new AsyncGRPCComputeServer({ computeFn, tls: { cert: 'PEM', key: Buffer.of(), clientCa: 'PEM' } });
    new AsyncGRPCComputeServer({
      computeFn,
      auth: {
        tokens: ['old', 'new'] as const,
        authorize(call) {
          expectTypeOf(call).toEqualTypeOf<AuthorizedCall>();
          expectTypeOf(call.method).toEqualTypeOf<'compute' | 'stream' | 'info'>();
          expectTypeOf(call.metadata['x-tenant']).toEqualTypeOf<string | undefined>();
        },
      },
    });
    new AsyncComputeServicer({ computeFn, auth: { authorize: async () => {} } });
    // @ts-expect-error: a certificate needs its key
    new AsyncGRPCComputeServer({ computeFn, tls: { cert: 'PEM' } });
    // @ts-expect-error: who refuses a call throws
    new AsyncGRPCComputeServer({ computeFn, auth: { authorize: () => false } });
    // @ts-expect-error: several, as they are replaced one by one
    new AsyncGRPCComputeServer({ computeFn, auth: { tokens: 'secret' } });
  });

  it('may be given limits', () => {
    const server = new AsyncGRPCComputeServer({
      computeFn,
      limits: {
        maxConnections: 1,
        maxCallsPerConnection: 1,
        maxStreamsPerConnection: 1,
        maxRequestBytes: 1,
        maxMetadataBytes: 1024,
        handshakeTimeoutMs: 1,
        slowPeerTimeoutMs: 1,
        silentPeerTimeoutMs: 1,
        keepAliveMs: 1,
      },
    });
    expectTypeOf<ServerLimits>().toExtend<ConnectionLimits & ExchangeLimitOptions>();
    expectTypeOf(server.getConnectionStatistics()).toEqualTypeOf<ConnectionStatistics>();
    // @ts-expect-error: no such limit
    new AsyncGRPCComputeServer({ computeFn, limits: { maxCalls: 1 } });
  });
});

describe('CompressedTensorCodec', () => {
  it('writes what it was told to, and reads what it wrote and what is raw', () => {
    const codec = new CompressedTensorCodec({ encoding: 'gzip', maxBytes: 1024 });
    expectTypeOf(codec).toExtend<TensorCodec>();
    expectTypeOf(codec.encode(one)).toEqualTypeOf<CompressedTensor>();
    expectTypeOf<CompressedTensor['encoding']>().toEqualTypeOf<TensorEncoding>();
    expectTypeOf(codec.decode(codec.encode(one))).toEqualTypeOf<Tensor>();
    expectTypeOf(codec.decode(new TensorCodec().encode(one), 'name')).toEqualTypeOf<Tensor>();
    expectTypeOf(supportedEncodings()).toEqualTypeOf<readonly TensorEncoding[]>();
    // @ts-expect-error: an encoding is a choice
    new CompressedTensorCodec({});
    // @ts-expect-error: auto is for clients, which know their link
    new CompressedTensorCodec({ encoding: 'auto' });
  });
});

describe('FaultRelay', () => {
  it('is a network that can be broken', () => {
    const relay = new FaultRelay('127.0.0.1:1', {
      delayMs: 1,
      bytesPerSecond: 1,
      listen: 'unix:/path',
      random: () => 0,
    });
    expectTypeOf(relay.start()).resolves.toEqualTypeOf<string>();
    expectTypeOf(relay.close()).resolves.toEqualTypeOf<void>();
    expectTypeOf(relay.refusing).toEqualTypeOf<boolean>();
    expectTypeOf(relay.getStatistics()).toEqualTypeOf<FaultStatistics>();
    expectTypeOf(relay).toExtend<AsyncDisposable>();
    expectTypeOf<FaultConditions>().toExtend<FaultRelayOptions>();
    relay.set({ stalled: true }, 'toServer');
    relay.cutAfter(1, 'toClient');
    relay.cut();
    // @ts-expect-error: where it listens is for ever
    relay.set({ listen: 'unix:/path' });
    // @ts-expect-error: a byte goes one way
    relay.cutAfter(1, 'both');
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
