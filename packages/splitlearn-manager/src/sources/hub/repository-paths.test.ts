import { posix, win32 } from 'node:path';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { isRepository, isSafePath } from './repository-paths.js';

it.each(['Xenova/gpt2', 'a/b', 'BAAI/bge-small-en-v1.5', '_x/y_'])('%s is a repository', (source) => {
  expect(isRepository(source)).toBe(true);
});

it.each(['gpt2', 'a/b/c', '/a', 'a/', '../b', 'a/..', 'a/.b', 'a/b.', 'a--b/c', 'a b/c', 'a\\b', 'a/b\0', 'a/b?x', ''])(
  '%j is no repository',
  (source) => {
    expect(isRepository(source)).toBe(false);
  },
);

it('whatever path is called safe stays below the folder that it is joined to, on each system', () => {
  const piece = fc.constantFrom('..', '.', '/', '\\', 'a', 'b.onnx', 'C:', '\0', '//', ' ', '…', 'onnx');
  const path = fc.oneof(
    fc.array(piece).map((pieces) => pieces.join('')),
    fc.string(),
  );
  fc.assert(
    fc.property(path, (each) => {
      if (!isSafePath(each)) return;
      const below = posix.normalize(posix.join('/cache/x', each));
      expect(below).toBe(`/cache/x/${each}`);
      const onWindows = win32.resolve('D:\\cache\\x', each);
      expect(onWindows.startsWith('D:\\cache\\x\\')).toBe(true);
      expect(each).not.toContain('\0');
    }),
    { numRuns: 5000 },
  );
});

it('plain names with slashes between are safe', () => {
  const name = fc.stringMatching(/^[\w-][\w.-]*$/);
  fc.assert(fc.property(fc.array(name, { minLength: 1, maxLength: 5 }), (names) => isSafePath(names.join('/'))));
});
