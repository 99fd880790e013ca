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
    const resolved = { source: 'tiny-gpt2', isolation, maxQueue: 256 };
    expect(parseModelConfig('tiny-gpt2')).toEqual(resolved);
    expect(parseModelConfig({ source: 'tiny-gpt2' })).toEqual(resolved);
  });

  it('is kept as it is where it says something', () => {
    const config = {
      modelId: 'm',
      source: './m',
      file: 'a.onnx',
      engine: 'onnx',
      isolation: 'thread',
      threads: 3,
      maxQueue: 0,
    } as const;
    expect(parseModelConfig(config)).toEqual(config);
    expect(ModelConfig.parse(config)).toEqual(config);
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
