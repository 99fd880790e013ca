import { describe, expect, it } from 'vitest';
import { bindError, hostAndPort, unixAddress } from './listen-address.js';

describe('host and port', () => {
  it.each([
    ['127.0.0.1', '127.0.0.1:50051'],
    ['gpu.example', 'gpu.example:50051'],
    ['::1', '[::1]:50051'],
    ['[::1]', '[::1]:50051'],
    ['::', '[::]:50051'],
  ])('%s is %s', (host, address) => {
    expect(hostAndPort(host, 50051)).toBe(address);
  });

  it.each(['', null, 5])('%j is no host', (host) => {
    expect(() => hostAndPort(host as string, 1)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('host must be') }),
    );
  });
});

describe('a unix socket', () => {
  it('is given as it is', () => {
    expect(unixAddress('unix:/run/compute.sock')).toBe('unix:/run/compute.sock');
  });

  it.each(['/run/compute.sock', 'unix:', 'localhost:50051'])('is not %s', (address) => {
    expect(() => unixAddress(address)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining('unix:/absolute/path') }),
    );
  });

  it('has a path that the operating system takes, in bytes', () => {
    const most = process.platform === 'linux' ? 107 : 103;
    const path = `/${'x'.repeat(most - 1)}`;
    expect(unixAddress(`unix:${path}`)).toBe(`unix:${path}`);
    expect(() => unixAddress(`unix:/${'ü'.repeat(most / 2)}x`)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(`at most ${most}`) }),
    );
  });
});

describe('what cannot be listened on', () => {
  it.each([
    ['127.0.0.1:1', 'bind EADDRINUSE', 'ADDRESS_IN_USE', 'another program listens there'],
    ['unix:/run/a.sock', 'listen EADDRINUSE', 'ADDRESS_IN_USE', 'one that was killed left the file behind'],
    ['192.0.2.1:1', 'bind EADDRNOTAVAIL', 'ADDRESS_NOT_AVAILABLE', 'host is an address of this machine'],
    ['unix:/no/a.sock', 'listen ENOENT', 'ADDRESS_NOT_AVAILABLE', 'the folder exists'],
  ])('%s, %s is %s', (address, why, reason, hint) => {
    const cause = new Error(why);
    expect(bindError(address, cause)).toMatchObject({
      code: 'FAILED_PRECONDITION',
      reason,
      cause,
      message: expect.stringContaining(hint),
    });
  });
});
