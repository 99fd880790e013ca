import { Metadata } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { fromMetadata, toMetadata } from './metadata.js';

describe('toMetadata', () => {
  it('makes headers of names and values', () => {
    expect(toMetadata({ 'x-tenant': 'a b', authorization: 'Bearer 1' }).getMap()).toEqual({
      'x-tenant': 'a b',
      authorization: 'Bearer 1',
    });
  });

  it.each([
    ['a value that is no ASCII', { 'x-name': 'Zoë' }, 'x-name'],
    ['a line break', { 'x-name': 'a\nb' }, 'x-name'],
    ['a name with a space', { 'x name': 'a' }, 'x name'],
    ['no name', { '': 'a' }, ''],
    ['an HTTP/2 name', { ':status': '200' }, ':status'],
    ['a binary name', { 'x-bin': 'a' }, 'x-bin'],
    ['a name that belongs to the connection', { connection: 'close' }, 'connection'],
    ['such a name in capitals', { 'Keep-Alive': '5' }, 'Keep-Alive'],
    ['a length', { 'content-length': '3' }, 'content-length'],
  ])('refuses %s, and names it', (_, headers, name) => {
    expect(() => toMetadata(headers as Record<string, string>)).toThrow(
      expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: expect.stringContaining(`metadata '${name}' cannot be sent: `),
      }),
    );
  });
});

describe('fromMetadata', () => {
  it('is what the caller sent, without what the transport and the connection added', () => {
    const metadata = new Metadata();
    for (const name of [
      'x-tenant',
      'user-agent',
      'grpc-timeout',
      'grpc-accept-encoding',
      'te',
      'host',
      'content-length',
    ]) {
      metadata.set(name, 'value');
    }
    metadata.set('x-bin', Buffer.from('binary'));
    expect(fromMetadata(metadata)).toEqual({ 'x-tenant': 'value' });
  });

  it('can be sent on as it is', () => {
    const metadata = new Metadata();
    for (const name of [
      'a',
      'upgrade',
      'http2-settings',
      'proxy-connection',
      'transfer-encoding',
      'keep-alive',
      'connection',
    ]) {
      metadata.set(name, 'value');
    }
    expect(toMetadata(fromMetadata(metadata)).getMap()).toEqual({ a: 'value' });
  });
});
