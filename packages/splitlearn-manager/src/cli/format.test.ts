import { describe, expect, it } from 'vitest';
import { formatBytes, formatMs, formatRate, formatTable, oneLine, plural, styleOf } from './format.js';

const plain = styleOf({ write() {} }, {});

describe('numbers', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1.0 KiB'],
    [99.9 * 1024, '99.9 KiB'],
    [100 * 1024, '100 KiB'],
    [1536 * 2 ** 20, '1.5 GiB'],
    [2 ** 62, '4194304 TiB'],
  ])('%d bytes are %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  it.each([
    [0.123, '0.12 ms'],
    [9.994, '9.99 ms'],
    [10, '10 ms'],
    [999, '999 ms'],
    [1000, '1.00 s'],
    [59_400, '59 s'],
    [120_000, '2 min'],
    [3_600_000, '60 min'],
    [9_000_000, '2.5 h'],
  ])('%d milliseconds are %s', (ms, text) => expect(formatMs(ms)).toBe(text));

  it('of things are told with the thing', () => {
    expect([plural(1, 'model'), plural(2, 'model'), formatRate(12.34), formatRate(1234.5)]).toEqual([
      ...['1 model', '2 models', '12.3', '1,235'],
    ]);
  });
});

describe('a table', () => {
  it('has columns as wide as they need, the last one no wider than its text', () => {
    const rows = [
      { name: 'a', size: 5, note: 'x' },
      { name: 'longer', size: 12345, note: '' },
    ];
    const text = formatTable(
      [
        { title: 'NAME', text: ({ name }) => name },
        { title: 'SIZE', text: ({ size }) => String(size), align: 'right' },
        { title: 'NOTE', text: ({ note }) => note },
      ],
      rows,
      plain,
    );
    expect(text).toBe('NAME     SIZE  NOTE\na           5  x\nlonger  12345\n');
  });

  it('lets no name of a model move the cursor', () => {
    const text = formatTable([{ title: 'T', text: (row: string) => row }], ['a\u001b[2Jb\nc'], plain);
    expect(text).toBe('T\na [2Jb c\n');
    expect(oneLine('\u009bx')).toBe(' x');
  });
});
