import { describe, expect, it } from 'vitest';
import { flagOf, readEnvironment, variableOf } from './environment.js';
import { SETTINGS } from './resolve.js';

function read(environment: NodeJS.ProcessEnv, others?: readonly string[]) {
  const { overrides, warnings } = readEnvironment(environment, SETTINGS, others);
  return { values: Object.fromEntries(overrides.map(({ path, value }) => [path.join('.'), value])), warnings };
}

describe('the variables of the environment', () => {
  it('are named by one rule from the fields, and no two fields share one', () => {
    const names = SETTINGS.map(({ path }) => variableOf(path));
    expect(new Set(names).size).toBe(names.length);
    expect(names).toEqual(
      expect.arrayContaining([
        'SPLITLEARN_HOST',
        'SPLITLEARN_MAX_MEMORY_PERCENT',
        'SPLITLEARN_MEMORY_LIMIT_BYTES',
        'SPLITLEARN_TLS_CLIENT_CA',
        'SPLITLEARN_AUTH_TOKENS',
        'SPLITLEARN_LIMITS_KEEP_ALIVE_MS',
        'SPLITLEARN_ADMIN_PORT',
        'SPLITLEARN_LOG_LEVEL',
        'SPLITLEARN_MODELS',
      ]),
    );
    expect(names).not.toContain('SPLITLEARN_ROUTES');
    expect(flagOf(['admin', 'port'])).toBe('--admin-port');
    expect(flagOf(['maxMessageLength'])).toBe('--max-message-length');
  });

  it('are read by what their fields are', () => {
    const environment = {
      SPLITLEARN_HOST: '0.0.0.0',
      SPLITLEARN_PORT: ' 8080 ',
      SPLITLEARN_MAX_MEMORY_PERCENT: '12.5',
      SPLITLEARN_FROZEN: 'TRUE',
      SPLITLEARN_LIMITS_KEEP_ALIVE_MS: 'Infinity',
      SPLITLEARN_AUTH_TOKENS: 'a, b',
      SPLITLEARN_LOG_LEVEL: 'debug',
      SPLITLEARN_MAX_MODELS: '',
      PATH: '/bin',
      splitlearn_port: '1',
    };
    expect(read(environment)).toEqual({
      values: {
        ...{ host: '0.0.0.0', port: 8080, maxMemoryPercent: 12.5, frozen: true, logLevel: 'debug' },
        ...{ 'limits.keepAliveMs': Number.POSITIVE_INFINITY, 'auth.tokens': ['a', 'b'] },
      },
      warnings: [],
    });
  });

  it('stay text where they are none of that, for the schema to refuse', () => {
    const environment = { SPLITLEARN_PORT: 'abc', SPLITLEARN_FROZEN: 'yes', SPLITLEARN_MAX_MODELS: ' ' };
    expect(read(environment).values).toEqual({ port: 'abc', frozen: 'yes', maxModels: ' ' });
  });

  it('are warned of where they mean nothing, with what was most likely meant, and without their values', () => {
    const environment = { SPLITLEARN_PROT: 'hunter2', SPLITLEARN_ADMIN_TOKEM: 'hunter2', SPLITLEARN_XYZ: '1' };
    expect(read(environment)).toEqual({
      values: {},
      warnings: [
        'the environment variable SPLITLEARN_ADMIN_TOKEM means nothing here; did you mean SPLITLEARN_ADMIN_TOKEN?',
        'the environment variable SPLITLEARN_PROT means nothing here; did you mean SPLITLEARN_PORT?',
        'the environment variable SPLITLEARN_XYZ means nothing here',
      ],
    });
  });

  it('are not warned of where they mean something elsewhere', () => {
    expect(
      read({ SPLITLEARN_CONFIG: 'a.yaml', SPLITLEARN_ADMIN: 'localhost:1' }, ['SPLITLEARN_ADMIN']).warnings,
    ).toEqual([]);
  });

  it('that Kubernetes makes for a service called splitlearn are none of ours', () => {
    const environment = {
      SPLITLEARN_PORT: 'tcp://10.0.0.1:50051',
      SPLITLEARN_SERVICE_HOST: '10.0.0.1',
      SPLITLEARN_SERVICE_PORT: '50051',
      SPLITLEARN_SERVICE_PORT_GRPC: '50051',
      SPLITLEARN_PORT_50051_TCP: 'tcp://10.0.0.1:50051',
      SPLITLEARN_PORT_50051_TCP_ADDR: '10.0.0.1',
    };
    expect(read(environment)).toEqual({ values: {}, warnings: [] });
  });
});
