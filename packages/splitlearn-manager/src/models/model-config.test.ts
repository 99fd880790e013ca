import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import { ModelConfig, parseModelConfig } from './model-config.js';

function failure(config: unknown): ManagerError {
  try {
    parseModelConfig(config as ModelConfig);
  } catch (error) {
    expect(error).toBeInstanceOf(ManagerError);
    return error as ManagerError;
  }
  return expect.fail(`${JSON.stringify(config)} was accepted`);
}

describe('a model configuration', () => {
  it('is filled in with defaults, and a string stands for its source', () => {
    const isolation = process.platform === 'win32' ? 'thread' : 'process';
    const resolved = {
      ...{ source: 'tiny-gpt2', isolation, maxQueue: 256 },
      ...{ device: 'auto', instances: 1, pinned: false, warmup: true },
    };
    expect(parseModelConfig('tiny-gpt2')).toEqual(resolved);
    expect(parseModelConfig({ source: 'tiny-gpt2' })).toEqual(resolved);
  });

  it('is kept as it is where it says something', () => {
    const config = {
      modelId: 'm',
      source: './m',
      revision: 'main',
      file: 'a.onnx',
      dtype: 'q4',
      engine: 'onnx',
      task: 'text-generation',
      device: 'cuda:1',
      address: 'gpu-box:50051',
      isolation: 'thread',
      threads: 3,
      instances: 64,
      maxMemoryBytes: 1,
      keepAliveMs: 0,
      pinned: true,
      warmup: false,
      maxQueue: 0,
    } as const;
    expect(parseModelConfig(config)).toEqual(config);
    expect(ModelConfig.parse(config)).toEqual(config);
  });

  it.each(['auto', 'cpu', 'cuda', 'cuda:0', 'cuda:12', 'coreml', 'dml', 'webgpu'])('takes the device %s', (device) => {
    expect(parseModelConfig({ source: 'x', device }).device).toBe(device);
  });

  it.each(['fp32', 'fp16', 'q8', 'int8', 'uint8', 'q4', 'q4f16', 'bnb4'] as const)('takes the dtype %s', (dtype) => {
    expect(parseModelConfig({ source: 'x', dtype }).dtype).toBe(dtype);
  });

  it.each([
    { field: 'modelId', config: { source: 'x', modelId: '' } },
    { field: 'modelId', config: { source: 'x', modelId: 'm'.repeat(201) } },
    { field: 'source', config: { source: '' } },
    { field: 'source', config: '' },
    { field: 'source', config: { source: 7 } },
    { field: 'source', config: {} },
    { field: 'file', config: { source: 'x', file: '' } },
    { field: 'engine', config: { source: 'x', engine: 'tensorflow' } },
    { field: 'isolation', config: { source: 'x', isolation: 'container' } },
    { field: 'threads', config: { source: 'x', threads: 0 } },
    { field: 'threads', config: { source: 'x', threads: 1.5 } },
    { field: 'threads', config: { source: 'x', threads: 257 } },
    { field: 'revision', config: { source: 'x', revision: '' } },
    { field: 'dtype', config: { source: 'x', dtype: 'fp8' } },
    { field: 'task', config: { source: 'x', task: '' } },
    { field: 'device', config: { source: 'x', device: 'cuda:' } },
    { field: 'device', config: { source: 'x', device: 'gpu' } },
    { field: 'device', config: { source: 'x', device: ' cpu' } },
    { field: 'address', config: { source: 'x', address: '' } },
    { field: 'instances', config: { source: 'x', instances: 0 } },
    { field: 'instances', config: { source: 'x', instances: 65 } },
    { field: 'instances', config: { source: 'x', instances: 1.5 } },
    { field: 'maxMemoryBytes', config: { source: 'x', maxMemoryBytes: 0 } },
    { field: 'maxMemoryBytes', config: { source: 'x', maxMemoryBytes: '1 GiB' } },
    { field: 'keepAliveMs', config: { source: 'x', keepAliveMs: -1 } },
    { field: 'keepAliveMs', config: { source: 'x', keepAliveMs: Number.POSITIVE_INFINITY } },
    { field: 'pinned', config: { source: 'x', pinned: 'yes' } },
    { field: 'warmup', config: { source: 'x', warmup: 1 } },
    { field: 'maxQueue', config: { source: 'x', maxQueue: -1 } },
    { field: 'maxQueue', config: { source: 'x', maxQueue: Number.NaN } },
    { field: 'maxQueue', config: { source: 'x', maxQueue: '5' } },
    { field: 'max_queue', config: { source: 'x', max_queue: 5 } },
  ])('is refused with the name of the field: $field of $config', ({ field, config }) => {
    const error = failure(config);
    expect(error.code).toBe('INVALID_CONFIG');
    expect(error.message).toContain('model configuration');
    expect(error.message).toContain(field);
    expect(error.toCommError().code).toBe('INVALID_ARGUMENT');
  });

  it('names all fields that are wrong at once', () => {
    const { message } = failure({ source: '', engine: 'x', threads: -1 });
    for (const field of ['source', 'engine', 'threads']) expect(message).toContain(field);
  });

  it('is refused with an INVALID_CONFIG for anything that is none', () => {
    const isConfig = (value: unknown) =>
      typeof value === 'string' || (typeof value === 'object' && value !== null && 'source' in value);
    fc.assert(
      fc.property(
        fc.anything().filter((value) => !isConfig(value)),
        (value) => failure(value).code === 'INVALID_CONFIG',
      ),
    );
  });
});
