import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import { type ModelConfig, parseModelConfig } from '../models/model-config.js';
import type { LocatedModel } from './local.js';
import { locateModel } from './locate.js';

let root: string;
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'locate-')));
});
afterEach(() => rmSync(root, { recursive: true }));

/** Makes files below the root; their content is their size in bytes. */
function write(files: Readonly<Record<string, number>>): void {
  for (const [name, bytes] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), Buffer.alloc(bytes));
  }
}

function locate(config: string | ModelConfig): Promise<LocatedModel> {
  return locateModel(parseModelConfig(config));
}

async function failure(config: string | ModelConfig): Promise<ManagerError> {
  const error = await locate(config).then(
    () => expect.fail('nothing was thrown'),
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(ManagerError);
  return error;
}

describe('a file', () => {
  it('is a model by itself, named by the file', async () => {
    write({ 'models/adder.onnx': 10 });
    const file = join(root, 'models/adder.onnx');
    const folder = join(root, 'models');
    expect(await locate(file)).toEqual({ modelId: 'adder', engine: 'onnx', folder, file, fileBytes: 10 });
  });

  it('is an ONNX model even beside a tokenizer, unless another engine is asked for', async () => {
    write({ 'm/model.onnx': 1, 'm/tokenizer.json': 1 });
    const source = join(root, 'm/model.onnx');
    expect((await locate(source)).engine).toBe('onnx');
    expect((await locate({ source, engine: 'transformers' })).engine).toBe('transformers');
  });

  it('counts with its external data, and not with what only lies beside it', async () => {
    write({ 'm/sparse.bin': 1000, 'm/sparse.onnx_data': 100, 'm/other.onnx': 7 });
    const file = fileURLToPath(new URL('../../test/fixtures/onnx/external-data-sparse.onnx', import.meta.url));
    copyFileSync(file, join(root, 'm/sparse.onnx'));
    expect((await locate(join(root, 'm/sparse.onnx'))).fileBytes).toBe(1000 + statSync(file).size);
  });

  it('cannot have a file inside', async () => {
    write({ 'm.onnx': 1 });
    const error = await failure({ source: join(root, 'm.onnx'), file: 'm.onnx' });
    expect(error.code).toBe('INVALID_CONFIG');
    expect(error.message).toContain("'file'");
  });
});

describe('a folder', () => {
  it.each([
    { files: { 'm/onnx/model.onnx': 1, 'm/model.onnx': 2, 'm/z.onnx': 3 }, found: 'm/onnx/model.onnx' },
    { files: { 'm/onnx/other.onnx': 1, 'm/model.onnx': 2, 'm/z.onnx': 3 }, found: 'm/model.onnx' },
    { files: { 'm/weights.onnx': 1, 'm/readme.md': 1 }, found: 'm/weights.onnx' },
    { files: { 'm/onnx/decoder.onnx': 1 }, found: 'm/onnx/decoder.onnx' },
  ])('has $found as its model among $files', async ({ files, found }) => {
    write(files);
    const model = await locate(join(root, 'm'));
    expect(model).toMatchObject({ modelId: 'm', engine: 'onnx', folder: join(root, 'm'), file: join(root, found) });
  });

  it('with a tokenizer is a text model, unless another engine is asked for', async () => {
    write({ 'm/onnx/model.onnx': 1, 'm/tokenizer.json': 1 });
    expect((await locate(join(root, 'm'))).engine).toBe('transformers');
    expect((await locate({ source: join(root, 'm'), engine: 'onnx' })).engine).toBe('onnx');
  });

  it('is given a file and a name by the configuration', async () => {
    write({ 'm/onnx/top.onnx': 5, 'm/onnx/model.onnx': 1 });
    const model = await locate({ source: join(root, 'm'), file: 'onnx/top.onnx', modelId: 'top' });
    expect(model).toMatchObject({ modelId: 'top', file: join(root, 'm/onnx/top.onnx'), fileBytes: 5 });
  });

  it('of several ONNX files needs to be told which', async () => {
    write({ 'm/a.onnx': 1, 'm/onnx/b.onnx': 1 });
    const error = await failure(join(root, 'm'));
    expect(error.code).toBe('SOURCE_INVALID');
    expect(error.message).toContain('a.onnx, onnx/b.onnx');
    expect(error.message).toContain("'file'");
  });

  it('without an ONNX file is no model', async () => {
    write({ 'm/config.json': 1, 'm/deeper/down/model.onnx': 1 });
    const error = await failure(join(root, 'm'));
    expect(error.code).toBe('SOURCE_INVALID');
    expect(error.message).toContain('no ONNX file');
  });

  it('says which files it has when the one that is asked for is not there', async () => {
    write({ 'm/a.onnx': 1, 'm/folder.onnx/b': 1 });
    for (const file of ['b.onnx', 'folder.onnx', '.']) {
      const error = await failure({ source: join(root, 'm'), file });
      expect(error.code).toBe('SOURCE_INVALID');
      expect(error.message).toContain(`no file '${file}'`);
      expect(error.message).toContain('a.onnx');
    }
  });

  it('may be reached by a link, and then goes by the name of the link', async () => {
    write({ 'real/model.onnx': 1 });
    symlinkSync('real', join(root, 'link'));
    expect(await locate(join(root, 'link'))).toMatchObject({ modelId: 'link', folder: join(root, 'real') });
  });
});

describe('nothing outside of the folder is ever loaded', () => {
  beforeEach(() => {
    write({ 'm/a.onnx': 1, 'm/..b.onnx': 1, 'secret.onnx': 1, 'elsewhere/model.onnx': 1 });
  });

  it.each(['../secret.onnx', 'onnx/../../secret.onnx', './../m/../secret.onnx'])('by the path %s', async (file) => {
    mkdirSync(join(root, 'm/onnx'));
    const error = await failure({ source: join(root, 'm'), file });
    expect(error.code).toBe('SOURCE_INVALID');
    expect(error.message).toContain('outside');
  });

  it('by an absolute path', async () => {
    expect((await failure({ source: join(root, 'm'), file: join(root, 'secret.onnx') })).code).toBe('SOURCE_INVALID');
  });

  it('by a link that is asked for', async () => {
    symlinkSync('../secret.onnx', join(root, 'm/link.onnx'));
    expect((await failure({ source: join(root, 'm'), file: 'link.onnx' })).message).toContain('outside');
  });

  it('by a link to a folder', async () => {
    symlinkSync('../elsewhere', join(root, 'm/onnx'));
    for (const config of [{ file: 'onnx/model.onnx' }, {}]) {
      expect((await failure({ source: join(root, 'm'), ...config })).message).toContain('outside');
    }
  });

  it.each(['model.onnx', 'onnx/model.onnx', 'only.onnx'])('by a link that is found as %s', async (name) => {
    write({ 'n/onnx/.keep': 0 });
    symlinkSync(join(root, 'secret.onnx'), join(root, 'n', name));
    expect((await failure(join(root, 'n'))).message).toContain('outside');
  });

  it('but a link inside of it, and a name that begins with two dots, are as good as any', async () => {
    symlinkSync('a.onnx', join(root, 'm/link.onnx'));
    expect((await locate({ source: join(root, 'm'), file: 'link.onnx' })).file).toBe(join(root, 'm/link.onnx'));
    expect((await locate({ source: join(root, 'm'), file: '..b.onnx' })).file).toBe(join(root, 'm/..b.onnx'));
  });
});

it("the hub's own cache is a source: a snapshot's files are links to the blobs of its repository", async () => {
  const snapshot = 'hub/models--org--name/snapshots/abc';
  write({ 'hub/models--org--name/blobs/123': 1, 'hub/models--other/blobs/456': 1, [`${snapshot}/onnx/.keep`]: 0 });
  symlinkSync('../../../blobs/123', join(root, snapshot, 'onnx/model.onnx'));
  symlinkSync('../../../../models--other/blobs/456', join(root, snapshot, 'onnx/other.onnx'));
  expect((await locate(join(root, snapshot))).file).toBe(join(root, snapshot, 'onnx/model.onnx'));
  const error = await failure({ source: join(root, snapshot), file: 'onnx/other.onnx' });
  expect(error.message).toContain('outside');
});

describe('a name', () => {
  it('of the catalogue is the model that ships with the package', async () => {
    const model = await locate('tiny-gpt2');
    expect(model).toMatchObject({ modelId: 'tiny-gpt2', engine: 'transformers' });
    expect(model.file).toMatch(/models\/tiny-gpt2\/onnx\/model\.onnx$/);
    expect(model.fileBytes).toBeGreaterThan(3_000_000);
  });

  it.each(['tiny-gpt3', 'toString', '__proto__', 'no\0file'])(
    'that is nothing (%j) is told where it was looked for',
    async (source) => {
      const error = await failure(source);
      expect(error.code).toBe('SOURCE_NOT_FOUND');
      expect(error.message).toContain(`'${source}'`);
      expect(error.message).toContain('tiny-gpt2');
      expect(error.message).toContain(join(process.cwd(), source));
    },
  );

  it('of something that is neither file nor folder is refused', async () => {
    expect((await failure('/dev/null')).code).toBe('SOURCE_INVALID');
  });
});

describe('a JavaScript file', () => {
  it.each(['echo.js', 'echo.mjs', 'echo.cjs'])('%s is the model itself', async (name) => {
    write({ [name]: 5, 'tokenizer.json': 1 });
    const file = join(root, name);
    expect(await locate(file)).toEqual({ modelId: 'echo', engine: 'module', folder: root, file, fileBytes: 5 });
  });

  it('may be named inside a folder', async () => {
    write({ 'm/echo.mjs': 5, 'm/model.onnx': 1 });
    expect(await locate({ source: join(root, 'm'), file: 'echo.mjs' })).toMatchObject({
      modelId: 'm',
      engine: 'module',
    });
  });
});

describe('the type of the weights', () => {
  it('chooses among the files of a folder', async () => {
    write({ 'm/onnx/model.onnx': 1, 'm/onnx/model_quantized.onnx': 2, 'm/onnx/model_quantized.onnx_data': 3 });
    const source = join(root, 'm');
    expect(await locate({ source, dtype: 'q8' })).toMatchObject({
      ...{ file: join(root, 'm/onnx/model_quantized.onnx'), fileBytes: 2 },
    });
    expect((await failure({ source, dtype: 'fp16' })).message).toContain("'fp16'");
  });
});
