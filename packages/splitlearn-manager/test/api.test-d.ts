// The types that users of the package rely on.
import type { CallStatistics, CommError, Logger, ModelInfo, Tensor, Tensors } from '@splitlearn/comm';
import {
  AsyncManagedServer,
  AsyncModelManager,
  type FinishReason,
  type GeneratedPiece,
  type GeneratedText,
  type ManagedClient,
  type ManagedModelInfo,
  ManagedServer,
  ManagerError,
  type ManagerErrorCode,
  type ModelConfig,
  type ModelLease,
  type ServerConfig,
  type ServerStatus,
  type UnloadReport,
} from '@splitlearn/manager';
import { describe, expectTypeOf, it } from 'vitest';

const client = {} as ManagedClient;

describe('ManagedClient', () => {
  it('infers text from a prompt, and tensors from tensors', () => {
    expectTypeOf(client.infer('a prompt')).resolves.toEqualTypeOf<GeneratedText>();
    expectTypeOf(
      client.infer('a prompt', { maxNewTokens: 8, temperature: 0.8, stop: ['.'] }),
    ).resolves.toEqualTypeOf<GeneratedText>();
    expectTypeOf(client.infer({} as Tensors)).resolves.toEqualTypeOf<Tensors>();
    expectTypeOf(
      client.infer({} as Tensors, { model: 'm', outputs: ['y'], parameters: { a: 1 } }),
    ).resolves.toEqualTypeOf<Tensors>();
  });

  it('takes for a prompt the options of texts, and for tensors those of tensors', () => {
    // @ts-expect-error: a text has no outputs to choose from
    client.infer('a prompt', { outputs: ['y'] });
    // @ts-expect-error: a parameter that does not exist
    client.infer('a prompt', { temprature: 1 });
    // @ts-expect-error: tensors are not generated token by token
    client.infer({} as Tensors, { maxNewTokens: 8 });
    // @ts-expect-error: neither a prompt nor tensors
    client.infer(7);
    // @ts-expect-error: the prompt is missing
    client.generate();
  });

  it('generates pieces, the last of which says why it is the last', () => {
    expectTypeOf(client.generate('a prompt')).toEqualTypeOf<AsyncGenerator<GeneratedPiece, void>>();
    expectTypeOf<GeneratedPiece['text']>().toEqualTypeOf<string>();
    expectTypeOf<GeneratedPiece['tokenId']>().toEqualTypeOf<number>();
    expectTypeOf<GeneratedPiece['finishReason']>().toEqualTypeOf<FinishReason | undefined>();
    expectTypeOf<GeneratedText['finishReason']>().toEqualTypeOf<'stop' | 'length'>();
  });

  it('computes one tensor from one, and several from several', () => {
    expectTypeOf(client.compute({} as Tensor)).resolves.toEqualTypeOf<Tensor>();
    expectTypeOf(client.compute({} as Tensors)).resolves.toEqualTypeOf<Tensors>();
    expectTypeOf(client.computeWithTiming({} as Tensors)).resolves.toHaveProperty('timing');
    expectTypeOf(client.listModels()).resolves.toEqualTypeOf<readonly ModelInfo[]>();
  });

  it('can be disposed of', () => {
    expectTypeOf(client).toExtend<AsyncDisposable>();
  });
});

describe('ManagedServer', () => {
  it('is made of a name, a configuration, or some of both', () => {
    expectTypeOf(ManagedServer).toBeConstructibleWith('tiny-gpt2');
    expectTypeOf(ManagedServer).toBeConstructibleWith({ source: 'tiny-gpt2', engine: 'onnx' }, { port: 0 });
    expectTypeOf(ManagedServer).toBeConstructibleWith(['tiny-gpt2', { source: './m.onnx' }] as const);
    expectTypeOf(ManagedServer).toBeConstructibleWith([]);
    // @ts-expect-error: a configuration needs a source
    new ManagedServer({ modelId: 'm' });
    // @ts-expect-error: an engine that does not exist
    new ManagedServer({ source: 'm', engine: 'tensorflow' });
    // @ts-expect-error: an option that does not exist
    new ManagedServer('m', { prot: 1 });
  });

  it('is an AsyncManagedServer', () => {
    const server = {} as ManagedServer;
    expectTypeOf(server).toExtend<AsyncManagedServer>();
    expectTypeOf(server).toExtend<AsyncDisposable>();
    expectTypeOf(server.start()).resolves.toEqualTypeOf<number>();
    expectTypeOf(server.stop({ graceMs: 1 })).resolves.toEqualTypeOf<void>();
    expectTypeOf(server.loadModel('m')).resolves.toEqualTypeOf<ManagedModelInfo>();
    expectTypeOf(server.loadModel({ source: 'm' })).resolves.toEqualTypeOf<ManagedModelInfo>();
    expectTypeOf(server.unloadModel('m')).resolves.toEqualTypeOf<UnloadReport>();
    expectTypeOf(server.getStatus()).toEqualTypeOf<ServerStatus>();
    expectTypeOf(server.modelManager).toEqualTypeOf<AsyncModelManager>();
  });

  it('tells its status', () => {
    const status = {} as ServerStatus;
    expectTypeOf(status.port).toEqualTypeOf<number | undefined>();
    expectTypeOf(status.calls).toEqualTypeOf<CallStatistics>();
    expectTypeOf(status.models).toEqualTypeOf<readonly ManagedModelInfo[]>();
    expectTypeOf<ManagedModelInfo['pid']>().toEqualTypeOf<number | undefined>();
    expectTypeOf<ManagedModelInfo>().toExtend<ModelInfo>();
  });
});

describe('the parts', () => {
  it('are put together by options that are all optional', () => {
    expectTypeOf(AsyncManagedServer).toBeConstructibleWith();
    expectTypeOf(AsyncManagedServer).toBeConstructibleWith({
      config: { port: 1 },
      models: ['m'],
      logger: {} as Logger,
    });
    expectTypeOf(AsyncModelManager).toBeConstructibleWith();
    expectTypeOf<ServerConfig>().toExtend<{ port?: number | undefined }>();
    expectTypeOf<ServerConfig['host']>().toEqualTypeOf<string | undefined>();
    expectTypeOf<ModelConfig['source']>().toEqualTypeOf<string>();
    expectTypeOf<ModelConfig['isolation']>().toEqualTypeOf<'process' | 'thread' | undefined>();
  });

  it('lend models out', () => {
    const manager = {} as AsyncModelManager;
    expectTypeOf(manager.acquire('m')).resolves.toEqualTypeOf<ModelLease>();
    expectTypeOf<ModelLease>().toExtend<AsyncDisposable>();
    expectTypeOf(manager.getModel('m')).toEqualTypeOf<ManagedModelInfo | undefined>();
    expectTypeOf(manager.getModelInfo('m')).toEqualTypeOf<ManagedModelInfo>();
  });

  it('throw errors with codes that a switch can take apart', () => {
    const error = new ManagerError('MODEL_CRASHED', 'the process ended');
    expectTypeOf(error).toExtend<Error>();
    expectTypeOf(error.code).toEqualTypeOf<ManagerErrorCode>();
    expectTypeOf(error.toCommError()).toEqualTypeOf<CommError>();
    // @ts-expect-error: a code that does not exist
    new ManagerError('MODEL_EXPLODED', 'boom');
  });
});
