import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TestEnvironment } from '../../test/support/cli-environment.js';
import { listCache } from './cache-listing.js';

let cache: string;
beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), 'sl-'));
});
afterEach(() => rmSync(cache, { recursive: true }));

const COMMIT = 'c'.repeat(40);

function write(path: string, bytes: number): void {
  mkdirSync(dirname(join(cache, path)), { recursive: true });
  writeFileSync(join(cache, path), Buffer.alloc(bytes));
}

/** As huggingface_hub leaves it. */
function addRepository(folder: string, files: Readonly<Record<string, number>>): void {
  for (const [index, [path, bytes]] of Object.entries(files).entries()) {
    write(`${folder}/blobs/${index}`, bytes);
    const link = join(cache, folder, 'snapshots', COMMIT, path);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(cache, folder, 'blobs', String(index)), link);
  }
}

const list = () => listCache({ HF_HUB_CACHE: cache });
const ls = async (...parameters: string[]) => {
  const { out } = await new TestEnvironment({ env: { HF_HUB_CACHE: cache } }).run('ls', ...parameters);
  return out;
};

describe('the cache of the hub', () => {
  it('is told with what each repository takes, however often its files are linked', async () => {
    addRepository('models--org--name', { 'onnx/model.onnx': 1000, 'config.json': 24 });
    write('models--org--name/refs/main', 40);
    write('models--org--name/refs/pr/1', 40);
    write('datasets--org--name/blobs/0', 7);
    const { repositories, cacheFolder } = await list();
    expect(cacheFolder).toBe(cache);
    const [found] = repositories;
    expect(repositories).toHaveLength(1);
    expect(found).toEqual({
      ...{ repository: 'org/name', bytes: 1104, revisions: ['main', 'pr/1'], onnx: true, incomplete: false },
    });
  });

  it('tells what cannot be loaded, and what has not been downloaded as a whole', async () => {
    addRepository('models--org--torch', { 'pytorch_model.bin': 5 });
    addRepository('models--org--part', { 'model.onnx': 5 });
    write('models--org--part/blobs/abc.incomplete', 3);
    const { repositories } = await list();
    expect(repositories.map(({ onnx, incomplete }) => [onnx, incomplete])).toEqual([
      ...[
        [true, true],
        [false, false],
      ],
    ]);
    expect(await ls()).toMatch(/org\/torch .*no ONNX file/);
    expect(await ls()).toMatch(/org\/part .*in part/);
  });

  it('follows no link, so that a circle has an end', async () => {
    addRepository('models--org--name', { 'model.onnx': 5 });
    symlinkSync(join(cache, 'models--org--name'), join(cache, 'models--org--name', 'snapshots', 'circle'));
    expect((await list()).repositories[0]?.bytes).toBe(5);
  });

  it('may not be there', async () => {
    rmSync(cache, { recursive: true });
    expect((await list()).repositories).toEqual([]);
    mkdirSync(cache);
  });
});

describe('ls', () => {
  it('has the catalogue first, each name with where its files are', async () => {
    addRepository('models--Xenova--gpt2', { 'onnx/model.onnx': 1000 });
    addRepository('models--org--name', { 'model.onnx': 5 });
    const { models, cacheBytes } = JSON.parse(await ls('--json'));
    expect(cacheBytes).toBe(1005);
    const where = models.map(({ name, where }: Record<string, string>) => [name, where]);
    expect(where.slice(0, 3)).toEqual([
      ...[
        ['tiny-gpt2', 'bundled'],
        ['gpt2', 'cached'],
        ['distilgpt2', 'hub'],
      ],
    ]);
    expect(where.at(-1)).toEqual(['org/name', 'cached']);
    expect(models[0].bytes).toBeGreaterThan(8e6);
  });

  it('with --cached shows only what is on this machine', async () => {
    const { models } = JSON.parse(await ls('--json', '--cached'));
    expect(models.map(({ name }: { name: string }) => name)).toEqual(['tiny-gpt2']);
  });
});
