import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { supportedEncodings } from '../codec/compression.js';
import { clientSettings, type GRPCComputeClientOptions } from './client-options.js';
import { NoRetry } from './retry.js';

const read = (name: string) => readFileSync(new URL(`../../test/fixtures/tls/${name}`, import.meta.url), 'utf8');

describe('a client', () => {
  it('has these settings by default', () => {
    expect(clientSettings({})).toEqual({
      timeoutMs: 60_000,
      maxMessageLength: 64 * 1024 * 1024,
      retry: expect.any(NoRetry),
      balancing: 'least-outstanding',
      encoding: 'raw',
      exchange: true,
      connectTimeoutMs: 20_000,
      keepAlive: { idleMs: 30_000, timeoutMs: 20_000 },
    });
  });

  it('takes undefined for not given', () => {
    const options = { timeoutMs: undefined, encoding: undefined, tls: undefined, token: undefined };
    expect(clientSettings(options as unknown as GRPCComputeClientOptions)).toEqual(clientSettings({}));
  });

  it('takes the extremes', () => {
    const { keepAlive, ...rest } = clientSettings({
      timeoutMs: Number.POSITIVE_INFINITY,
      keepAliveMs: Number.POSITIVE_INFINITY,
      connectTimeoutMs: 0,
      maxMessageLength: 2 ** 32 - 1,
    });
    expect(keepAlive.idleMs).toBe(Number.POSITIVE_INFINITY);
    expect(rest).toMatchObject({
      timeoutMs: Number.POSITIVE_INFINITY,
      connectTimeoutMs: 0,
      maxMessageLength: 2 ** 32 - 1,
    });
  });

  it('has for ever to connect, as long as a timer can be', () => {
    expect(clientSettings({ connectTimeoutMs: Number.POSITIVE_INFINITY }).connectTimeoutMs).toBe(2 ** 31 - 1);
  });

  it.each(['auto', ...supportedEncodings()] as const)('can have the encoding %s', (encoding) => {
    expect(clientSettings({ encoding }).encoding).toBe(encoding);
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['a negative time', { timeoutMs: -1 }, 'timeoutMs must be 0 or more'],
    ['a time to connect that is none', { connectTimeoutMs: Number.NaN }, 'connectTimeoutMs must be'],
    ['a keepalive that is text', { keepAliveMs: '30s' }, 'keepAliveMs must be'],
    ['messages without a byte', { maxMessageLength: 0 }, 'maxMessageLength must be an integer from 1 to 4294967295'],
    ['messages beyond 4 GiB', { maxMessageLength: 2 ** 32 }, 'maxMessageLength must be an integer'],
    ['messages without a limit', { maxMessageLength: Number.POSITIVE_INFINITY }, 'maxMessageLength must be'],
    ['an unknown balancing', { balancing: 'random' }, 'balancing must be one of least-outstanding, round-robin'],
    ['an unknown encoding', { encoding: 'lz4' }, 'encoding must be one of auto, raw, float16, bfloat16, int8, gzip'],
    ['an encoding that everything has', { encoding: 'toString' }, "it is 'toString'"],
    ['a token with a space', { token: 'my secret' }, 'token must be a text of ASCII letters'],
    ['an empty token', { token: '' }, 'token must be a text'],
    ['a path in place of an authority', { tls: { ca: 'ca.pem' } }, 'tls.ca is no certificate in PEM form'],
    ['a certificate without a key', { tls: { cert: read('client.pem') } }, 'tls.key is missing'],
  ])('cannot have %s', (_, options, message) => {
    expect(() => clientSettings(options)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });
});
