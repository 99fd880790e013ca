import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import type { DownloadProgress } from '../src/sources/hub/progress.js';
import { systemRuntime } from '../src/sources/hub/runtime.js';
import { COMMIT, etagOf, type LocalHub, type LocalHubOptions, sha256 } from './support/local-hub.js';
import { KIB, LocalHubClient, MODEL, NEEDED, repositoryFiles, tree } from './support/local-hub-client.js';

let client: LocalHubClient;
let hub: LocalHub;
afterEach(() => client[Symbol.asyncDispose]());

async function start(files?: Record<string, Buffer>, options?: LocalHubOptions): Promise<LocalHub> {
  client = await LocalHubClient.start(files, options);
  hub = client.hub;
  return hub;
}

describe('a repository of the hub', () => {
  it('is downloaded into the layout of the Python library, only what is needed', async () => {
    const { files } = await start();
    const located = await client.locate();
    const snapshot = join(client.repository, 'snapshots', COMMIT);
    expect(located).toMatchObject({
      modelId: 'org/name',
      engine: 'transformers',
      folder: snapshot,
      file: join(snapshot, MODEL),
      fileBytes: 1024 * KIB,
      revision: COMMIT,
    });
    expect(located.digest).toMatch(/^[0-9a-f]{64}$/);
    expect(tree(snapshot)).toEqual(NEEDED);
    for (const path of NEEDED) {
      const bytes = files.get(path) as Buffer;
      expect(readFileSync(join(snapshot, path)).equals(bytes)).toBe(true);
      const up = path.includes('/') ? '../../../' : '../../';
      expect(readlinkSync(join(snapshot, path))).toBe(`${up}blobs/${etagOf(path, bytes)}`);
      expect(hub.served.get(path)).toBe(bytes.length);
    }
    expect(readdirSync(join(client.repository, 'blobs'))).toHaveLength(NEEDED.length);
    expect(readFileSync(join(client.repository, 'refs/main'), 'utf8')).toBe(COMMIT);
    expect(tree(join(client.cache, '.locks'))).toEqual([]);
    expect([...hub.served.keys()].sort()).toEqual([...NEEDED].sort());
  });

  it('is asked for one thing only the second time: whether the branch has moved', async () => {
    await start();
    const first = await client.locate();
    hub.seen.length = 0;
    expect(await client.locate()).toEqual(first);
    expect(hub.seen.map(({ path }) => path)).toEqual(['/api/models/org/name/revision/main']);
  });

  it('is asked for nothing at all the second time by its commit', async () => {
    await start();
    await client.locate({ source: 'org/name', revision: COMMIT });
    hub.seen.length = 0;
    await client.locate({ source: 'org/name', revision: COMMIT });
    expect(hub.seen).toEqual([]);
  });

  it('has its files of a branch or a tag, and of what that is at now', async () => {
    const other = 'a'.repeat(40);
    await start(repositoryFiles(), { refs: { main: COMMIT, 'refs/pr/1': other } });
    expect((await client.locate({ source: 'org/name', revision: 'refs/pr/1' })).revision).toBe(other);
    expect(readFileSync(join(client.repository, 'refs/refs/pr/1'), 'utf8')).toBe(other);
    hub.refs.set('main', 'b'.repeat(40));
    expect((await client.locate()).revision).toBe('b'.repeat(40));
    // Both have the same files, which are fetched once.
    expect(hub.served.get(MODEL)).toBe(1024 * KIB);
  });

  it('is fetched by the type of the weights', async () => {
    await start();
    const { file } = await client.locate({ source: 'org/name', dtype: 'q8' });
    expect(file).toMatch(/onnx\/model_quantized\.onnx$/);
    expect(hub.served.has(MODEL)).toBe(false);
    expect((await client.failure({ source: 'org/name', dtype: 'q4' })).message).toContain('model_quantized.onnx');
  });

  it('comes with its external data, and without a tokenizer it is no text model', async () => {
    await start({
      // As an ONNX file names the files with its weights.
      [MODEL]: Buffer.concat(
        ['model.onnx_data', 'model.onnx_data_1'].map((name) =>
          Buffer.from(`\n\x08location\x12${String.fromCharCode(name.length)}${name}`),
        ),
      ),
      'onnx/model.onnx_data': randomBytes(100 * KIB),
      'onnx/model.onnx_data_1': randomBytes(KIB),
      'onnx/model_fp16.onnx_data': randomBytes(KIB),
      'config.json': Buffer.from('{}'),
    });
    expect(await client.locate()).toMatchObject({ engine: 'onnx', fileBytes: 101 * KIB + 56 });
    expect(tree(join(client.repository, 'snapshots', COMMIT))).toEqual([
      MODEL,
      'onnx/model.onnx_data',
      'onnx/model.onnx_data_1',
    ]);
  });

  it('may list its files on many pages', async () => {
    await start(repositoryFiles(), { pageSize: 3 });
    await client.locate();
    expect(hub.seen.filter(({ path }) => path.includes('/tree/'))).toHaveLength(4);
  });

  it('may have an empty file', async () => {
    await start({ ...repositoryFiles(), 'generation_config.json': Buffer.alloc(0) });
    const { folder } = await client.locate();
    expect(readFileSync(join(folder, 'generation_config.json'))).toHaveLength(0);
  });

  it('is the catalogue entry of a short name', async () => {
    await start(repositoryFiles(), { repository: 'Xenova/gpt2' });
    expect(await client.locate('gpt2')).toMatchObject({ modelId: 'gpt2', task: 'text-generation', revision: COMMIT });
  });

  it('can be the embedded model, byte for byte', async () => {
    const folder = fileURLToPath(new URL('../models/tiny-gpt2', import.meta.url));
    const names = tree(folder);
    await start(Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name))])));
    const located = await client.locate();
    expect(sha256(readFileSync(located.file))).toBe(sha256(readFileSync(join(folder, MODEL))));
  });

  it('tells how far the download is', async () => {
    await start();
    const reports: DownloadProgress[] = [];
    await client.locate('org/name', { onProgress: (progress) => reports.push(progress) });
    const totalBytes = NEEDED.reduce((sum, path) => sum + (hub.files.get(path) as Buffer).length, 0);
    expect(reports.length).toBeGreaterThanOrEqual(NEEDED.length);
    expect(reports.at(-1)).toEqual({
      ...{ repository: 'org/name', commit: COMMIT, file: MODEL, fileBytes: 1024 * KIB, fileTotalBytes: 1024 * KIB },
      ...{ bytes: totalBytes, totalBytes, filesDone: NEEDED.length, files: NEEDED.length },
    });
  });
});

describe('the token', () => {
  it('goes to the hub, and to nobody whom the hub sends on to', async () => {
    await start();
    await client.locate('org/name', { environment: { HF_TOKEN: 'hf_secret' } });
    for (const { isCdn, authorization } of hub.seen) expect(authorization).toBe(isCdn ? undefined : 'Bearer hf_secret');
    expect(hub.seen.some(({ isCdn }) => isCdn)).toBe(true);
  });

  it('is in no message, not even when it cannot be sent', async () => {
    await start();
    hub.fail('revision', { status: 401 });
    const refused = await client.failure('org/name', { environment: { HF_TOKEN: 'hf_secret' } });
    const broken = await client.failure('org/name', { environment: { HF_TOKEN: 'hf_secret\nb\u{1f600}' } });
    expect(broken.code).toBe('INVALID_CONFIG');
    for (const error of [refused, broken]) expect(`${error.stack} ${error.cause}`).not.toContain('hf_secret');
  });
});

describe('what the hub refuses', () => {
  it.each([
    { status: 401, headers: { 'x-error-code': 'GatedRepo' }, code: 'SOURCE_ACCESS_DENIED', says: 'accept its terms' },
    { status: 403, headers: {}, code: 'SOURCE_ACCESS_DENIED', says: 'HF_TOKEN' },
    { status: 401, headers: {}, code: 'SOURCE_ACCESS_DENIED', says: 'HF_TOKEN' },
    { status: 401, headers: { 'x-error-code': 'RepoNotFound' }, code: 'SOURCE_NOT_FOUND', says: 'spelling' },
    { status: 404, headers: {}, code: 'SOURCE_NOT_FOUND', says: 'spelling' },
    { status: 418, headers: {}, code: 'SOURCE_UNAVAILABLE', says: 'HF_ENDPOINT' },
  ])('with $status $headers is $code', async ({ code, says, ...fault }) => {
    await start();
    hub.fail('revision', fault);
    const error = await client.failure();
    expect(error.code).toBe(code);
    expect(error.message).toContain(says);
    expect(error.message).toContain('org/name');
    expect(hub.seen).toHaveLength(1);
  });

  it('for a gated file names the page with the terms', async () => {
    await start();
    hub.fail(`${MODEL} at the hub`, { status: 403, headers: { 'x-error-code': 'GatedRepo' } });
    expect((await client.failure()).message).toContain(`${hub.url}/org/name`);
  });

  it('is said of a repository, a revision and a file that are not there', async () => {
    await start();
    for (const config of [
      'org/other',
      { source: 'org/name', revision: 'v9' },
      { source: 'org/name', file: 'x.onnx' },
    ]) {
      expect((await client.failure(config)).code).toBe('SOURCE_NOT_FOUND');
    }
  });

  it('for a while is asked for again, after random waits with limits that double, or when the hub says', async () => {
    await start();
    hub.fail('revision', { status: 500 }, { status: 503 }, { status: 429, headers: { 'retry-after': '7' } });
    hub.fail('tree', { status: 502 });
    await client.locate();
    expect(client.clock.waitsMs).toEqual([250, 500, 7000, 250]);
  });

  it('by the store of the files, whose addresses expire, is asked for again', async () => {
    await start();
    hub.fail(MODEL, { status: 403 }, { status: 410 }, { status: 503 });
    await client.locate();
  });

  it('is given up after some attempts', async () => {
    await start();
    hub.fail('revision', ...Array.from({ length: 20 }, () => ({ status: 500 })));
    expect((await client.failure()).code).toBe('SOURCE_UNAVAILABLE');
    expect(hub.seen).toHaveLength(systemRuntime.attempts);
  });
});
