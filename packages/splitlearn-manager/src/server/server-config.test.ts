import { describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import { parseServerConfig, type ServerConfig } from './server-config.js';

function failure(config: unknown): ManagerError {
  try {
    parseServerConfig(config as ServerConfig);
  } catch (error) {
    expect(error).toBeInstanceOf(ManagerError);
    return error as ManagerError;
  }
  return expect.fail(`${JSON.stringify(config)} was accepted`);
}

describe('a server configuration', () => {
  it('is safe by default: it listens on this machine only, and everything has a limit', () => {
    expect(parseServerConfig({})).toEqual({
      host: '127.0.0.1',
      port: 50051,
      maxMessageLength: 64 * 1024 * 1024,
      maxModels: 16,
      maxMemoryPercent: 80,
      frozen: false,
    });
  });

  it('is kept as it is where it says something', () => {
    const config = {
      host: '0.0.0.0',
      port: 0,
      maxMessageLength: 1024,
      maxModels: 1,
      maxMemoryPercent: 12.5,
      memoryLimitBytes: 1,
      lockfile: 'splitlearn.lock',
      frozen: true,
    };
    expect(parseServerConfig(config)).toEqual(config);
  });

  it.each([
    { field: 'host', config: { host: '' } },
    { field: 'port', config: { port: -1 } },
    { field: 'port', config: { port: 65536 } },
    { field: 'port', config: { port: 80.5 } },
    { field: 'port', config: { port: '50051' } },
    { field: 'maxMessageLength', config: { maxMessageLength: 1023 } },
    { field: 'maxModels', config: { maxModels: 0 } },
    { field: 'maxMemoryPercent', config: { maxMemoryPercent: 0 } },
    { field: 'maxMemoryPercent', config: { maxMemoryPercent: 101 } },
    { field: 'memoryLimitBytes', config: { memoryLimitBytes: 0 } },
    { field: 'memoryLimitBytes', config: { memoryLimitBytes: Number.POSITIVE_INFINITY } },
    { field: 'frozen', config: { frozen: true } },
    { field: 'maxModel', config: { maxModel: 3 } },
  ])('is refused with the name of the field: $field of $config', ({ field, config }) => {
    const error = failure(config);
    expect(error.code).toBe('INVALID_CONFIG');
    expect(error.message).toContain('server configuration');
    expect(error.message).toContain(field);
  });

  it.each([null, 7, 'localhost', []])('is refused where it is %j', (config) => {
    expect(failure(config).code).toBe('INVALID_CONFIG');
  });
});
