import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { OutputTail } from './output-tail.js';

function setUp() {
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  const lines: string[] = [];
  const tail = new OutputTail({ stdout, stderr }, (line) => lines.push(line));
  /** Ends a stream and waits until all of it was read. */
  const end = (stream: PassThrough) => new Promise<void>((resolve) => stream.once('end', resolve).end());
  return { stdout, stderr, lines, tail, end };
}

describe('the output of a process', () => {
  it('is passed on line by line, both streams', async () => {
    const { stdout, stderr, lines, end } = setUp();
    stdout.write('one\ntw');
    stderr.write('three\r\n');
    stdout.write('o\n\nfour');
    await end(stderr);
    await end(stdout);
    expect(lines.sort()).toEqual(['', 'four', 'one', 'three', 'two']);
  });

  it('loses nothing, wherever its chunks are cut', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.string({ unit: fc.constantFrom('a', '€', '😀', '\n') })), async (parts) => {
        const { stderr, lines, tail, end } = setUp();
        for (const byte of Buffer.from(parts.join(''))) stderr.write(Buffer.of(byte));
        await end(stderr);
        const text = parts.join('');
        expect(lines).toEqual(text === '' ? [] : text.replace(/\n$/, '').split('\n'));
        expect(tail.asClause()).toBe(text.trim() && ` (its last output: ${text.trim()})`);
      }),
    );
  });

  it('of a process that never ends its line is passed on in pieces', async () => {
    const { stdout, lines, end } = setUp();
    for (let i = 0; i < 100; i++) stdout.write('x'.repeat(1_000));
    expect(lines.length).toBeGreaterThanOrEqual(20);
    await end(stdout);
    expect(lines.join('')).toBe('x'.repeat(100_000));
    expect(Math.max(...lines.map(({ length }) => length))).toBeLessThan(10_000);
  });
});

describe('the tail', () => {
  it('is empty while there is no output but white space', () => {
    const { stdout, tail } = setUp();
    expect(tail.asClause()).toBe('');
    stdout.write(' \n\n');
    expect(tail.asClause()).toBe('');
  });

  it('is the end of the output, with a line that has no end yet', () => {
    const { stderr, tail } = setUp();
    stderr.write('early\n'.repeat(10_000));
    stderr.write('terminate called after throwing\nbad_alloc');
    const clause = tail.asClause();
    expect(clause).toMatch(/^ \(its last output: .*terminate called after throwing\nbad_alloc\)$/s);
    expect(clause.length).toBeLessThan(1_000);
  });

  it('never begins with half a character', () => {
    const { stderr, tail } = setUp();
    for (const end of ['', 'a']) {
      stderr.write('😀'.repeat(1_000) + end);
      expect(tail.asClause().isWellFormed()).toBe(true);
    }
  });

  it('does without streams that the process does not have', () => {
    expect(new OutputTail({ stdout: null, stderr: null }, () => {}).asClause()).toBe('');
  });
});
