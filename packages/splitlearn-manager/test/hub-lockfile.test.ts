import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { hashFile } from '../src/sources/file-hashes.js';
import { checkOrLock, formatLockfile, type LockedModel, parseLockfile } from '../src/sources/lockfile.js';
import { COMMIT, type LocalHub, sha256 } from './support/local-hub.js';
import { LocalHubClient, MODEL, NEEDED, tree } from './support/local-hub-client.js';

let client: LocalHubClient;
let hub: LocalHub;
afterEach(() => client[Symbol.asyncDispose]());

async function start(): Promise<void> {
  client = await LocalHubClient.start();
  hub = client.hub;
}

const path = () => join(client.home, 'splitlearn.lock');
const open = () => ({ path: path(), frozen: false });
const frozen = () => ({ path: path(), frozen: true });
const read = () => JSON.parse(readFileSync(path(), 'utf8'));

/** Changes a file without a change of its size or the time of its last change. */
function corrupt(file: string): void {
  const bytes = readFileSync(file);
  bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1;
  writeFileSync(file, bytes);
  utimesSync(file, 1e9, 1e9);
}

describe('a source of the hub', () => {
  it('is written into the lockfile when it is first used', async () => {
    await start();
    const { digest } = await client.locate('org/name', { lockfile: open() });
    const files = Object.fromEntries(
      NEEDED.map((name) => [name, hub.files.get(name) as Buffer] as const).map(([name, bytes]) => [
        name,
        { sha256: sha256(bytes), bytes: bytes.length },
      ]),
    );
    expect(read()).toEqual({
      lockfileVersion: 1,
      models: { 'org/name@main': { repository: 'org/name', commit: COMMIT, files } },
    });
    const sums = NEEDED.map((name) => `${files[name]?.sha256}  ${name}\n`).join('');
    expect(digest).toBe(sha256(Buffer.from(sums)));
    expect((await client.locate()).digest).toBe(digest);
    expect(tree(client.home).filter((name) => name.includes('splitlearn.lock'))).toEqual(['splitlearn.lock']);
  });

  it('stays at its commit when the branch moves', async () => {
    await start();
    await client.locate('org/name', { lockfile: open() });
    const before = readFileSync(path(), 'utf8');
    hub.refs.set('main', 'b'.repeat(40));
    hub.seen.length = 0;
    for (const lockfile of [open(), frozen()]) {
      expect((await client.locate('org/name', { lockfile })).revision).toBe(COMMIT);
    }
    expect(hub.seen).toEqual([]);
    expect(readFileSync(path(), 'utf8')).toBe(before);
    expect((await client.locate('org/name')).revision).toBe('b'.repeat(40));
  });

  it('is found on another machine by the lockfile alone', async () => {
    await start();
    await client.locate('org/name', { lockfile: open() });
    rmSync(client.cache, { recursive: true });
    hub.refs.clear();
    expect((await client.locate('org/name', { lockfile: frozen() })).revision).toBe(COMMIT);
  });

  it('that is not in it is refused when it is frozen, before anything is asked', async () => {
    await start();
    expect((await client.failure('org/name', { lockfile: frozen() })).code).toBe('LOCKFILE_MISMATCH');
    expect(hub.seen).toEqual([]);
    await client.locate('org/name', { lockfile: open() });
    const other = await client.failure({ source: 'org/name', dtype: 'q8' }, { lockfile: frozen() });
    expect(other.code).toBe('LOCKFILE_MISMATCH');
    expect(other.message).toContain('onnx/model_quantized.onnx');
    await client.locate({ source: 'org/name', dtype: 'q8' }, { lockfile: open() });
    await client.locate({ source: 'org/name', dtype: 'q8' }, { lockfile: frozen() });
    await client.locate('org/name', { lockfile: frozen() });
  });

  it.each([MODEL, 'config.json'])('of which the file %s has changed is refused, with what was wanted', async (name) => {
    await start();
    const { folder } = await client.locate('org/name', { lockfile: open() });
    corrupt(join(folder, name));
    for (const lockfile of [open(), frozen()]) {
      const error = await client.failure('org/name', { lockfile });
      expect(error.code).toBe('LOCKFILE_MISMATCH');
      expect(error.message).toContain(`'${name}'`);
      expect(error.message).toContain(`wanted sha256 ${sha256(hub.files.get(name) as Buffer)}`);
      expect(error.message).toContain(`found sha256 ${sha256(readFileSync(join(folder, name)))}`);
    }
  });
});

describe('a source on disk', () => {
  it('is held to its files, and with an open lockfile may change', async () => {
    await start();
    const source = join(client.home, 'm');
    cpSync(fileURLToPath(new URL('../models/tiny-gpt2', import.meta.url)), source, { recursive: true });
    const { digest } = await client.locate(source, { lockfile: open() });
    expect(Object.keys(read().models)).toEqual([source]);
    expect(await client.locate(source, { lockfile: frozen() })).toMatchObject({ digest });
    appendFileSync(join(source, 'config.json'), ' ');
    const error = await client.failure(source, { lockfile: frozen() });
    expect(error.code).toBe('LOCKFILE_MISMATCH');
    expect(error.message).toContain("'config.json'");
    const changed = await client.locate(source, { lockfile: open() });
    expect(changed.digest).not.toBe(digest);
    await client.locate(source, { lockfile: frozen() });
  });

  it('may be a program', async () => {
    await start();
    const source = join(client.home, 'echo.mjs');
    writeFileSync(source, 'export const load = () => {};');
    expect(await client.locate(source, { lockfile: open() })).toMatchObject({
      ...{ modelId: 'echo', engine: 'module', file: source },
    });
    expect(read().models[source].files['echo.mjs'].bytes).toBe(29);
    writeFileSync(source, 'export const load = () => {;}');
    expect((await client.failure(source, { lockfile: frozen() })).code).toBe('LOCKFILE_MISMATCH');
  });
});

describe('the lockfile', () => {
  it('says the same after it was written and read, with all keys in order', async () => {
    await start();
    const hex = (length: number) => fc.stringMatching(new RegExp(`^[0-9a-f]{${length}}$`));
    // Those whose names are numbers come first in any object of JavaScript.
    const key = fc.string({ minLength: 1 }).filter((name) => name !== '__proto__' && !/^\d+$/.test(name));
    const files = fc.dictionary(key, fc.record({ sha256: hex(64), bytes: fc.nat() }));
    const model = fc.oneof(fc.record({ files }), fc.record({ repository: fc.string(), commit: hex(40), files }));
    fc.assert(
      fc.property(fc.dictionary(key, model), (models) => {
        const text = formatLockfile(models);
        expect(parseLockfile(text, 'x')).toEqual({ ...models });
        const reversed = Object.fromEntries(Object.entries(models).reverse());
        expect(formatLockfile(reversed)).toBe(text);
        const keys = Object.keys(JSON.parse(text).models);
        expect(keys).toEqual([...keys].sort());
      }),
    );
  });

  it.each([
    '',
    '{}',
    '[]',
    '{"lockfileVersion":2,"models":{}}',
    '{"lockfileVersion":1,"models":{"a":{"files":{"b":1}}}}',
  ])('cannot be %j', async (text) => {
    await start();
    writeFileSync(path(), text);
    const error = await client.failure('tiny-gpt2', { lockfile: open() });
    expect(error.code).toBe('INVALID_CONFIG');
    expect(error.message).toContain(path());
    expect(readFileSync(path(), 'utf8')).toBe(text);
  });

  it('loses nothing when many write at once', async () => {
    await start();
    const model: LockedModel = { files: { a: { sha256: 'a'.repeat(64), bytes: 1 } } };
    const names = Array.from({ length: 8 }, (_, index) => `model-${index}`);
    await Promise.all(names.map((name) => checkOrLock(open(), name, model)));
    expect(Object.keys(read().models)).toEqual(names);
  });
});

describe('the hash of a file', () => {
  it('is remembered while the file is the same', async () => {
    await start();
    const file = join(client.home, 'file');
    writeFileSync(file, 'one');
    const environment = { HOME: client.home };
    const memory = () => tree(join(client.home, '.cache/splitlearn/hashes'));
    // One that has just been written may be written to again within the same tick of its times.
    expect(await hashFile(file, environment)).toEqual({ sha256: sha256(Buffer.from('one')), bytes: 3 });
    expect(memory()).toEqual([]);
    // A file of the package was made long ago.
    const old = fileURLToPath(import.meta.resolve('zod'));
    const first = await hashFile(old, environment);
    expect(memory()).toHaveLength(1);
    const remembered = join(client.home, '.cache/splitlearn/hashes', memory()[0] as string);
    const { stamp } = JSON.parse(readFileSync(remembered, 'utf8'));
    writeFileSync(remembered, JSON.stringify({ stamp, sha256: 'f'.repeat(64) }));
    expect((await hashFile(old, environment)).sha256).toBe('f'.repeat(64));
    writeFileSync(remembered, JSON.stringify({ stamp: `${stamp}1`, sha256: 'f'.repeat(64) }));
    expect(await hashFile(old, environment)).toEqual(first);
    for (const damaged of ['', '{}', '{"stamp":1}']) {
      writeFileSync(remembered, damaged);
      expect(await hashFile(old, environment)).toEqual(first);
    }
  });

  it('needs no folder that can be written to', async () => {
    await start();
    const blocked = join(mkdtempSync(join(tmpdir(), 'blocked-')), 'file');
    mkdirSync(dirname(blocked), { recursive: true });
    writeFileSync(blocked, '');
    const old = fileURLToPath(import.meta.resolve('zod'));
    expect((await hashFile(old, { XDG_CACHE_HOME: blocked })).sha256).toMatch(/^[0-9a-f]{64}$/);
    rmSync(dirname(blocked), { recursive: true });
  });
});
