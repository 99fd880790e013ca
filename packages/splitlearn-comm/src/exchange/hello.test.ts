import { Metadata } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { readHello, writeHello } from './hello.js';

import v1 = splitlearn.comm.v1;

const KEY = 'splitlearn-hello-bin';

describe('a hello', () => {
  it('arrives as it was said, beside what else there is', () => {
    const given = new Metadata();
    given.set('x-tenant', 'a');
    const metadata = writeHello({ maxMessageBytes: 2 ** 40, maxCalls: 7, readsWhileWriting: true }, given);
    expect(metadata).toBe(given);
    expect(metadata.get('x-tenant')).toEqual(['a']);
    const hello = readHello(metadata);
    expect([Number(hello.maxMessageBytes), hello.maxCalls, hello.readsWhileWriting]).toEqual([2 ** 40, 7, true]);
  });

  it('may have parts that a later version says', () => {
    const metadata = new Metadata();
    metadata.set(KEY, Buffer.concat([v1.Hello.encode({ maxCalls: 3 }).finish(), Buffer.of(0xf8, 0x7f, 1)]));
    expect(readHello(metadata).maxCalls).toBe(3);
  });

  it.each<[string, (metadata: Metadata) => void]>([
    ['is missing', () => {}],
    ['is empty', (metadata) => metadata.set(KEY, Buffer.alloc(0))],
    ['is malformed', (metadata) => metadata.set(KEY, Buffer.alloc(30, 0xff))],
  ])('that %s says nothing', (_, write) => {
    const metadata = new Metadata();
    write(metadata);
    const hello = readHello(metadata);
    expect([Number(hello.maxMessageBytes ?? 0), hello.maxCalls ?? 0, hello.readsWhileWriting ?? false]).toEqual([
      0,
      0,
      false,
    ]);
  });
});
