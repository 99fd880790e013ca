import { describe, expect, it } from 'vitest';
import { rejection } from '../../test/support/deferred.js';
import { RecordingLogger } from '../../test/support/functions.js';
import { CommError } from '../errors.js';
import { type AuthOptions, Authorization, type AuthorizedCall, unsafeBindWarning } from './authorization.js';

const logger = new RecordingLogger();

function caller(metadata: Record<string, string> = {}, rest: Partial<AuthorizedCall> = {}): AuthorizedCall {
  return { method: 'compute', metadata, peer: '10.0.0.7:51234', ...rest };
}

function check(options: AuthOptions, call = caller()) {
  return new Authorization(options, logger).check(call);
}

const withToken = (token: string) => caller({ authorization: `Bearer ${token}` });
const unauthenticated = expect.objectContaining({
  code: 'UNAUTHENTICATED',
  message: 'this server asks for a token; give one that it knows as the `token` option of the client',
});
const denied = expect.objectContaining({
  code: 'PERMISSION_DENIED',
  message: 'this server does not allow the call',
});

describe('a server without auth', () => {
  it('lets everyone pass at once, and looks at nothing', () => {
    expect(new Authorization({}, logger).check(undefined as unknown as AuthorizedCall)).toBe(undefined);
  });
});

describe('a server with tokens', () => {
  const tokens = ['old-secret', 'new-secret'];

  it.each(tokens)('lets a call with %s pass at once', (token) => {
    expect(check({ tokens }, withToken(token))).toBe(undefined);
  });

  it.each([
    ['no token', caller()],
    ['a wrong token', withToken('other-secret')],
    ['the beginning of a token', withToken('old')],
    ['both tokens', withToken('old-secret,new-secret')],
    ['a token in another case', withToken('OLD-SECRET')],
    ['another scheme', caller({ authorization: 'Basic old-secret' })],
    ['a token without a scheme', caller({ authorization: 'old-secret' })],
    ['an empty token', withToken('')],
  ])('says the same of a call with %s', (_, call) => {
    expect(() => check({ tokens }, call)).toThrow(unauthenticated);
  });

  it('does not ask the hook about a call without one', () => {
    let asked = 0;
    const authorize = () => {
      asked++;
    };
    expect(() => check({ tokens, authorize }, withToken('wrong'))).toThrow(unauthenticated);
    expect(asked).toBe(0);
    expect(check({ tokens, authorize }, withToken('old-secret'))).toBe(undefined);
    expect(asked).toBe(1);
  });

  it.each<[string, AuthOptions, string]>([
    ['an empty list', { tokens: [] }, 'auth.tokens is empty, and nobody could call; leave it out to ask for no token'],
    ['an empty token', { tokens: ['a', ''] }, 'auth.tokens[1] must be a text of ASCII'],
    ['a token with a space', { tokens: ['my secret'] }, 'auth.tokens[0] must be a text of ASCII'],
    ['a hook that is none', { authorize: true as never }, 'auth.authorize must be a function; it is boolean'],
  ])('is not made with %s', (_, options, message) => {
    expect(() => new Authorization(options, logger)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });
});

describe('a server with a hook', () => {
  it('tells it of the call', () => {
    const asked: AuthorizedCall[] = [];
    const authorize = (call: AuthorizedCall) => void asked.push(call);
    const certificate = { subject: { CN: 'test client' } };
    const authorization = new Authorization({ authorize }, logger);
    expect(authorization.check(caller({ 'x-tenant': 'a', authorization: 'Basic b' }, { method: 'stream' }))).toBe(
      undefined,
    );
    authorization.check(caller({}, { method: 'info', certificate: certificate as never }));
    expect(asked).toEqual([
      { method: 'stream', metadata: { 'x-tenant': 'a', authorization: 'Basic b' }, peer: '10.0.0.7:51234' },
      { method: 'info', metadata: {}, peer: '10.0.0.7:51234', certificate },
    ]);
  });

  it('passes on the CommError that it throws, at once or later', async () => {
    const error = new CommError('RESOURCE_EXHAUSTED', 'tenant a has used up its calls', { reason: 'QUOTA' });
    const toCommError = () => error;
    const throwing = () => {
      throw error;
    };
    expect(() => check({ authorize: throwing })).toThrow(error);
    expect(await rejection(check({ authorize: async () => throwing() }) as Promise<void>)).toBe(error);
    const foreign = () => {
      throw Object.assign(new Error('of another package'), { toCommError });
    };
    expect(() => check({ authorize: foreign })).toThrow(error);
    expect(logger.lines).toEqual([]);
  });

  it('keeps any other error to itself, and logs it', async () => {
    const throwing = () => {
      throw new Error('password = 1234');
    };
    expect(() => check({ authorize: throwing })).toThrow(denied);
    expect(await rejection(check({ authorize: async () => throwing() }) as Promise<void>)).toEqual(denied);
    const line = expect.stringMatching(
      /^auth\.authorize failed for a call \(compute\) of 10\.0\.0\.7:51234: Error: password = 1234\n/,
    );
    expect(logger.lines.splice(0)).toEqual([line, line]);
  });

  it('waits for what it gives, whatever kind of promise it is', async () => {
    let allow: () => void = () => {};
    const decision = check({ authorize: () => new Promise<void>((resolve) => (allow = resolve)) });
    expect(decision).toBeInstanceOf(Promise);
    allow();
    expect(await decision).toBe(undefined);
    // biome-ignore lint/suspicious/noThenProperty: that is the point
    const thenable = { then: (_: unknown, reject: (error: unknown) => void) => reject(new Error('no')) };
    expect(await rejection(check({ authorize: () => thenable as never }) as Promise<void>)).toEqual(denied);
    logger.lines.length = 0;
  });

  it('takes false for a refusal, and nothing else', async () => {
    const answers = (answer: unknown) => check({ authorize: () => answer as never }) as Promise<void>;
    expect(await rejection(answers(false))).toEqual(denied);
    expect(await rejection(answers(Promise.resolve(false)))).toEqual(denied);
    expect(await answers(true)).toBe(undefined);
    expect(await answers(null)).toBe(undefined);
    expect(logger.lines).toEqual([]);
  });
});

describe('unsafeBindWarning', () => {
  const tls = { cert: '', key: '' };
  const auth = { tokens: ['secret'] };

  it.each([
    '127.0.0.1',
    '127.8.9.10',
    '::1',
    '[::1]',
    '0:0:0:0:0:0:0:1',
    '::ffff:127.0.0.1',
    'localhost',
    'LocalHost.',
    'unix:/tmp/compute.sock',
  ])('is silent about %s', (host) => {
    expect(unsafeBindWarning(host, {})).toBe(undefined);
  });

  it.each([
    '0.0.0.0',
    '::',
    '[::]',
    '10.0.0.7',
    '128.0.0.1',
    'fe80::1',
    'gpu-box',
    'localhost.example',
    '127.0.0.1.example',
  ])('speaks up about %s', (host) => {
    expect(unsafeBindWarning(host, {})).toBe(
      `the server listens on ${host}, beyond this machine: anyone who can reach it may call it (give auth.tokens, or ` +
        'tls.clientCa), and what it is sent can be read and changed on the way (give tls); or listen on 127.0.0.1',
    );
  });

  it('says what is missing, and nothing when nothing is', () => {
    expect(unsafeBindWarning('0.0.0.0', { auth })).toBe(
      'the server listens on 0.0.0.0, beyond this machine: what it is sent can be read and changed on the way (give tls); or listen on 127.0.0.1',
    );
    expect(unsafeBindWarning('0.0.0.0', { tls })).toBe(
      'the server listens on 0.0.0.0, beyond this machine: anyone who can reach it may call it (give auth.tokens, or tls.clientCa); or listen on 127.0.0.1',
    );
    expect(unsafeBindWarning('0.0.0.0', { tls, auth: {} })).toContain('give auth.tokens');
    expect(unsafeBindWarning('0.0.0.0', { tls, auth })).toBe(undefined);
    expect(unsafeBindWarning('0.0.0.0', { tls, auth: { authorize: () => {} } })).toBe(undefined);
    expect(unsafeBindWarning('0.0.0.0', { tls: { ...tls, clientCa: '' } })).toBe(undefined);
  });
});
