import { copyFileSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { externalDataBytes } from './external-data.js';

const fixture = (name: string) => fileURLToPath(new URL(`../../test/fixtures/onnx/${name}`, import.meta.url));

/** A part of an ONNX file that says where a tensor lies. */
function location(name: string): Buffer {
  const bytes = Buffer.from(name);
  const length = bytes.length < 128 ? [bytes.length] : [(bytes.length & 0x7f) | 0x80, bytes.length >> 7];
  return Buffer.concat([Buffer.from('j\x00\x0a\x08location\x12', 'latin1'), Buffer.from(length), bytes]);
}

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'external-data-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

describe('externalDataBytes', () => {
  it('is 0 for a file that has its weights in it', async () => {
    expect(await externalDataBytes(fixture('identity-float32.onnx'))).toBe(0);
  });

  it('is the size of the file that a real model names, whatever it is called', async () => {
    const file = join(folder, 'model.onnx');
    copyFileSync(fixture('external-data-sparse.onnx'), file);
    expect(await externalDataBytes(file)).toBe(0);
    writeFileSync(join(folder, 'sparse.bin'), '');
    truncateSync(join(folder, 'sparse.bin'), 2 ** 30);
    expect(await externalDataBytes(file)).toBe(2 ** 30);
  });

  it('counts a file once that many tensors lie in, and every file', async () => {
    const long = `weights-${'x'.repeat(180)}.bin`;
    mkdirSync(join(folder, 'weights'));
    for (const [name, bytes] of [
      ['a.bin', 100],
      [long, 20],
      ['weights/b', 3],
    ] as const)
      writeFileSync(join(folder, name), Buffer.alloc(bytes));
    const file = join(folder, 'model.onnx');
    writeFileSync(file, Buffer.concat(['a.bin', 'a.bin', long, 'weights/b', 'a.bin'].map(location)));
    expect(await externalDataBytes(file)).toBe(123);
  });

  it('finds names wherever they are in a long file', async () => {
    const file = join(folder, 'model.onnx');
    const part = 256 * 1024;
    const places = [0, part - 1, 2 * part - 14, 3 * part - 20, 4 * part - 100, 4 * part + 500, 5 * part - 300].map(
      (start, index) => ({
        start,
        name: `w${index}-${'x'.repeat(index * 30)}`,
      }),
    );
    const bytes = Buffer.alloc(5 * part);
    for (const { start, name } of places) {
      location(name).copy(bytes, start);
      writeFileSync(join(folder, name), 'x');
    }
    writeFileSync(file, bytes);
    expect(await externalDataBytes(file)).toBe(places.length);
  });

  it('does not mind files that are not there, folders, and a file that ends in the middle', async () => {
    const file = join(folder, 'model.onnx');
    writeFileSync(
      file,
      Buffer.concat([location('missing'), location('.'), location('with\0nothing'), location('cut')]).subarray(0, -2),
    );
    expect(await externalDataBytes(file)).toBe(0);
    writeFileSync(file, location('cut').subarray(0, -4));
    expect(await externalDataBytes(file)).toBe(0);
  });

  it('of a file that is too large for a graph alone is what is called like it', async () => {
    const file = join(folder, 'model.onnx');
    writeFileSync(join(folder, 'a.bin'), 'weights');
    writeFileSync(file, location('a.bin'));
    truncateSync(file, 16 * 2 ** 20 + 1);
    writeFileSync(join(folder, 'model.onnx_data'), 'more');
    expect(await externalDataBytes(file)).toBe(4);
  });
});
