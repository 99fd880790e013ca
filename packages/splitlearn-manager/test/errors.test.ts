// Whatever is wrong, the message says what and what to do, its code is stable, and the server serves on.
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Tensors, tensor } from '@splitlearn/comm';
import { ManagedClient, ManagedServer, type ManagerError, type ModelConfig } from '@splitlearn/manager';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  childProcesses,
  commFailure,
  countTo,
  identity,
  Log,
  loop,
  managerFailure,
  onnxFile,
  readAll,
  type Served,
  serve,
  someTensors,
  temporaryFiles,
  watchProcesses,
} from './support/managed.js';
import { emptyPast, tokenInputs } from './support/tiny-gpt2.js';

watchProcesses();

let served: Served;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'errors-'));
  mkdirSync(join(folder, 'empty'));
  writeFileSync(join(folder, 'corrupt.onnx'), 'no ONNX at all');
  served = await serve(
    [
      { modelId: 'writer', source: 'tiny-gpt2', isolation: 'thread' },
      { modelId: 'raw', source: 'tiny-gpt2', engine: 'onnx' },
      { ...identity, maxQueue: 0 },
    ],
    { maxModels: 4 },
  );
});
afterAll(async () => {
  rmSync(folder, { recursive: true });
  await served.close();
});

/** After each failure all the models answer. */
afterEach(async () => {
  const { text } = await served.client.infer('In the beginning', { model: 'writer', maxNewTokens: 1 });
  expect(text).toBe(' of');
  expect((await served.client.infer(someTensors, { model: 'identity' })).y?.shape).toEqual([3]);
  const { models } = served.server.getStatus();
  expect(models.map(({ modelId, state, leases }) => ({ modelId, state, leases }))).toEqual(
    ['writer', 'raw', 'identity'].map((modelId) => ({ modelId, state: 'READY', leases: 0 })),
  );
});

/** Messages are for people: whole sentences that hold what is wrong and what to do. */
function expectClear({ message }: Error, ...parts: readonly string[]): void {
  for (const part of parts) expect(message).toContain(part);
  expect(message.length).toBeLessThan(1_010);
  expect(message).not.toMatch(/undefined|null|NaN|\[object|\n\s+at /);
}

describe('a model that cannot be loaded', () => {
  const cases: readonly {
    what: string;
    config: () => string | ModelConfig;
    code: ManagerError['code'];
    parts: readonly string[];
  }[] = [
    {
      what: 'an unknown name',
      config: () => 'tiny-gpt3',
      code: 'SOURCE_NOT_FOUND',
      parts: ["'tiny-gpt3'", 'tiny-gpt2', 'check the spelling'],
    },
    {
      what: 'a missing file',
      config: () => join(folder, 'missing.onnx'),
      code: 'SOURCE_NOT_FOUND',
      parts: ['missing.onnx', 'no file or folder'],
    },
    {
      what: 'a folder without a model',
      config: () => join(folder, 'empty'),
      code: 'SOURCE_INVALID',
      parts: ['no ONNX file'],
    },
    {
      what: 'a corrupt file',
      config: () => join(folder, 'corrupt.onnx'),
      code: 'MODEL_LOAD_FAILED',
      parts: ["'corrupt'", 'corrupt.onnx', '14 bytes', 'export it again'],
    },
    {
      what: 'a corrupt file in a thread',
      config: () => ({ source: join(folder, 'corrupt.onnx'), isolation: 'thread' }),
      code: 'MODEL_LOAD_FAILED',
      parts: ["'corrupt'", 'corrupt.onnx', '14 bytes', 'export it again'],
    },
    {
      what: 'a file outside of its folder',
      config: () => ({ source: join(folder, 'empty'), file: '../corrupt.onnx' }),
      code: 'SOURCE_INVALID',
      parts: ['../corrupt.onnx', 'outside'],
    },
    {
      what: 'a wrong field',
      config: () => ({ source: 'tiny-gpt2', modelId: 'm', threads: 0 }),
      code: 'INVALID_CONFIG',
      parts: ['threads', 'at least 1'],
    },
    {
      what: 'an engine that does not go with it',
      config: () => ({ source: join(folder, 'corrupt.onnx'), engine: 'transformers' }),
      code: 'SOURCE_INVALID',
      parts: ['config.json', 'another engine'],
    },
  ];

  it.each(cases)('because of $what is told so when it is loaded', async ({ config, code, parts }) => {
    const before = served.server.getStatus().resources;
    const error = await managerFailure(served.server.loadModel(config()));
    expect(error.code).toBe(code);
    expectClear(error, ...parts);
    const { reservedBytes, reservedThreads } = served.server.getStatus().resources;
    expect(reservedThreads).toBe(before.reservedThreads);
    // Less than what any model would have been reserved: the others' memory is measured now and then.
    expect(reservedBytes - before.reservedBytes).toBeLessThan(50 * 2 ** 20);
  });

  const atStart = cases.filter(({ what }) => ['an unknown name', 'a corrupt file', 'a wrong field'].includes(what));
  it.each(atStart)(
    'because of $what is told so at the start, and nothing stays loaded beside it',
    async ({ config, code, parts }) => {
      const processes = childProcesses();
      const server = new ManagedServer([identity, config()], { port: 0, logger: new Log() });
      const error = await managerFailure(server.start());
      expect(error.code).toBe(code);
      expectClear(error, ...parts);
      expect(server.getStatus()).toMatchObject({ models: [], resources: { reservedBytes: 0, reservedThreads: 0 } });
      expect(childProcesses()).toBe(processes);
      await server.stop();
      await server.waitForTermination();
    },
  );
});

it('a broken model fails all who load it at once alike, leaves nothing, and can be loaded when it is mended', async () => {
  const source = join(folder, 'mended.onnx');
  writeFileSync(source, 'broken');
  const processes = childProcesses();
  const files = temporaryFiles();
  const errors = await Promise.all(Array.from({ length: 20 }, () => managerFailure(served.server.loadModel(source))));
  expect(new Set(errors.map(({ code, message }) => `${code}: ${message}`)).size).toBe(1);
  expect(errors[0]?.code).toBe('MODEL_LOAD_FAILED');
  expect(served.server.modelManager.getModel('mended')).toBe(undefined);
  expect(childProcesses()).toBe(processes);
  expect(temporaryFiles()).toEqual(files);

  copyFileSync(onnxFile('loop'), source);
  expect((await served.server.loadModel(source)).state).toBe('READY');
  expect((await served.client.compute(countTo(3), { model: 'mended' })).count?.data).toEqual(BigInt64Array.of(3n));
  await served.server.unloadModel('mended');
});

describe('a request that is wrong', () => {
  const ids = tokenInputs([40, 77], 0);
  const cases: readonly {
    what: string;
    inputs: Tensors;
    model: string;
    parameters?: Record<string, number | string>;
    outputs?: string[];
    code: string;
    reason: string;
    parts: readonly string[];
  }[] = [
    {
      what: 'a model that is not there',
      inputs: someTensors,
      model: 'nobody',
      code: 'NOT_FOUND',
      reason: 'MODEL_NOT_FOUND',
      parts: ["'nobody'", "'writer', 'raw', 'identity'"],
    },
    {
      what: 'no model where there are several',
      inputs: someTensors,
      model: '',
      code: 'INVALID_ARGUMENT',
      reason: 'MODEL_AMBIGUOUS',
      parts: ['writer, raw, identity'],
    },
    {
      what: 'an input of another name',
      inputs: { z: tensor([1]) },
      model: 'identity',
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_INPUT',
      parts: ["'identity'", "was not given 'x'", 'float32'],
    },
    {
      what: 'one input too many',
      inputs: { ...someTensors, z: tensor([1]) },
      model: 'identity',
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_INPUT',
      parts: ["no input 'z'", "'x'"],
    },
    {
      what: 'an input of another dtype',
      inputs: { x: tensor(Float64Array.of(1)) },
      model: 'identity',
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_INPUT',
      parts: ["'x'", 'float64', 'must have float32'],
    },
    {
      what: 'an input of another shape',
      inputs: { ...ids, ...emptyPast(), input_ids: tensor(BigInt64Array.of(1n)) },
      model: 'raw',
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_INPUT',
      parts: ["'input_ids'", 'shape [1]'],
    },
    {
      what: 'shapes that do not go together',
      inputs: { ...ids, ...emptyPast(), attention_mask: tensor(BigInt64Array.of(1n, 1n, 1n, 1n, 1n), [1, 5]) },
      model: 'raw',
      code: 'INVALID_ARGUMENT',
      reason: 'INFERENCE_FAILED',
      parts: ["'raw'", "'attention_mask' int64 [1, 5]"],
    },
    {
      what: 'an output that is not there',
      inputs: someTensors,
      model: 'identity',
      outputs: ['z'],
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_INPUT',
      parts: ["no output 'z'", "'y'"],
    },
    {
      what: 'tensors in place of text',
      inputs: someTensors,
      model: 'writer',
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_INPUT',
      parts: ["no input 'x'", "'text'"],
    },
    {
      what: 'a parameter out of its range',
      inputs: { text: tensor(['In']) },
      model: 'writer',
      parameters: { temperature: -1 },
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_INPUT',
      parts: ["'temperature' cannot be -1", 'from 0'],
    },
    {
      what: 'an unknown parameter',
      inputs: { text: tensor(['In']) },
      model: 'writer',
      parameters: { temprature: 1 },
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_INPUT',
      parts: ["no parameter 'temprature'", "'temperature'"],
    },
    {
      what: 'a prompt beyond the context',
      inputs: { text: tensor(['the king '.repeat(200)]) },
      model: 'writer',
      code: 'INVALID_ARGUMENT',
      reason: 'CONTEXT_LENGTH_EXCEEDED',
      parts: ["'writer'", '256', '255', 'Shorten'],
    },
  ];

  it.each(cases)('because of $what is told so', async ({ inputs, code, reason, parts, ...options }) => {
    const error = await commFailure(served.client.infer(inputs, options));
    expect(error).toMatchObject({ code, reason, retryable: false });
    expectClear(error, ...parts);
  });

  it('is told so in a stream as well', async () => {
    const wrong = [
      { options: { model: 'nobody' }, reason: 'MODEL_NOT_FOUND' },
      { options: {}, reason: 'MODEL_AMBIGUOUS' },
      { options: { model: 'writer', temperature: -1 }, reason: 'INVALID_INPUT' },
      { options: { model: 'raw' }, reason: 'INVALID_INPUT' },
    ];
    for (const { options, reason } of wrong) {
      const error = await commFailure(readAll(served.client.generate('In', options)));
      expect(error.reason).toBe(reason);
      expectClear(error);
    }
  });

  it('is a request that failed in the statistics of its model, if it got that far', async () => {
    const before = served.server.getStatus().requestsByModel.identity;
    await commFailure(served.client.infer({ z: tensor([1]) }, { model: 'identity' }));
    await commFailure(served.client.infer(someTensors, { model: 'nobody' }));
    const after = served.server.getStatus().requestsByModel;
    expect(after.identity?.failed).toBe((before?.failed ?? 0) + 1);
    expect(after).not.toHaveProperty('nobody');
  });
});

it('a model that does not continue texts is no reason for a riddle', async () => {
  await served.server.loadModel({ modelId: 'echo', source: onnxFile('onnx/identity-string'), isolation: 'thread' });
  const error = await commFailure(served.client.infer('In the beginning', { model: 'echo' }));
  expect(error.reason).toBe('INVALID_INPUT');
  expectClear(error, "'x' string");
  await served.server.unloadModel('echo');
});

describe('the port', () => {
  it('that is taken is a clear error, and neither model nor process stays', async () => {
    const blocker = createServer();
    const port = await new Promise<number>((resolve) => {
      blocker.listen(0, '127.0.0.1', () => resolve((blocker.address() as { port: number }).port));
    });
    const processes = childProcesses();
    const files = temporaryFiles();
    const server = new ManagedServer([identity, { ...identity, modelId: 'in a thread', isolation: 'thread' }], {
      port,
    });
    const error = await commFailure(server.start());
    expect(error).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'ADDRESS_IN_USE' });
    expectClear(error, `127.0.0.1:${port}`, 'another port');
    expect(server.getStatus()).toMatchObject({ models: [], resources: { reservedBytes: 0 } });
    expect(server.getStatus()).not.toHaveProperty('port');
    expect(childProcesses()).toBe(processes);
    expect(temporaryFiles()).toEqual(files);
    await server.stop();
    await new Promise((resolve) => blocker.close(resolve));
  });

  it('that is none is refused before anything is loaded', () => {
    expect(() => new ManagedServer('tiny-gpt2', { port: 65_536 })).toThrow(/server configuration.*port/s);
  });

  it('where nobody serves is told to the client', async () => {
    await using client = new ManagedClient('127.0.0.1:1');
    const error = await commFailure(client.infer('In the beginning'));
    expect(error).toMatchObject({ code: 'UNAVAILABLE', retryable: true });
    expectClear(error, '127.0.0.1:1', 'check that it runs');
  });
});

describe('loading a model that is loaded', () => {
  it('with the same configuration gives the one that is there', async () => {
    const { pid } = served.server.modelManager.getModelInfo('identity');
    expect((await served.server.loadModel({ ...identity, maxQueue: 0 })).pid).toBe(pid);
    const defaults = { isolation: process.platform === 'win32' ? 'thread' : 'process' } as const;
    expect((await served.server.loadModel({ ...identity, maxQueue: 0, ...defaults })).pid).toBe(pid);
  });

  it('with another configuration is refused', async () => {
    for (const different of [{ maxQueue: 1 }, { source: onnxFile('loop') }, { isolation: 'thread' } as const]) {
      const error = await managerFailure(served.server.loadModel({ ...identity, maxQueue: 0, ...different }));
      expect(error.code).toBe('MODEL_ALREADY_LOADED');
      expectClear(error, "'identity'", 'unload it first', 'modelId');
    }
  });
});

describe('too much', () => {
  it('is more models than maxModels, where none may go', async () => {
    await using small = await serve({ ...identity, isolation: 'thread', pinned: true }, { maxModels: 1 });
    const error = await managerFailure(small.server.loadModel({ ...loop, isolation: 'thread' }));
    expect(error.code).toBe('TOO_MANY_MODELS');
    expectClear(error, "'loop'", '1 of at most 1 models', 'maxModels', 'unpin');
    expect(small.server.getStatus().models.map(({ modelId }) => modelId)).toEqual(['identity']);
  });

  it('is more memory than memoryLimitBytes', async () => {
    await using small = await serve({ ...identity, isolation: 'thread' }, { memoryLimitBytes: 100 * 2 ** 20 });
    const error = await managerFailure(small.server.loadModel(loop));
    expect(error.code).toBe('INSUFFICIENT_MEMORY');
    expectClear(error, "'loop'", '111 MiB', '100 MiB', 'memoryLimitBytes');
    expect(small.server.getStatus().models.map(({ modelId }) => modelId)).toEqual(['identity']);
    expect((await small.client.infer(someTensors)).y?.shape).toEqual([3]);
  });

  it('is a request beyond maxMessageLength', async () => {
    await using small = await serve(identity, { maxMessageLength: 1024 });
    const error = await commFailure(small.client.infer({ x: tensor(new Float32Array(1_000)) }));
    expect(error.code).toBe('RESOURCE_EXHAUSTED');
    expectClear(error, 'maxMessageLength');
    expect((await small.client.infer(someTensors)).y?.shape).toEqual([3]);
  });
});

describe('unloading', () => {
  it('a model that is not there is refused', async () => {
    const error = await managerFailure(served.server.unloadModel('nobody'));
    expect(error.code).toBe('MODEL_NOT_FOUND');
    expectClear(error, "'nobody'", "'writer', 'raw', 'identity'");
  });

  it('leaves requests for the model with nothing but a clear error', async () => {
    await served.server.loadModel({ ...identity, modelId: 'short-lived', isolation: 'thread' });
    await served.server.unloadModel('short-lived');
    expect((await commFailure(served.client.infer(someTensors, { model: 'short-lived' }))).reason).toBe(
      'MODEL_NOT_FOUND',
    );
  });
});

it('a server without models says how it gets one', async () => {
  await using empty = await serve([]);
  const error = await commFailure(empty.client.infer('In the beginning'));
  expect(error.reason).toBe('MODEL_NOT_FOUND');
  expectClear(error, 'loadModel()');
  await empty.server.loadModel({ ...identity, isolation: 'thread' });
  expect((await empty.client.infer(someTensors)).y?.shape).toEqual([3]);
});

it('a server that was stopped loads no more models', async () => {
  const { server, close } = await serve([]);
  await close();
  const error = await managerFailure(server.loadModel(identity));
  expect(error.code).toBe('SHUT_DOWN');
  expectClear(error, "'identity'", 'shutting down');
});
