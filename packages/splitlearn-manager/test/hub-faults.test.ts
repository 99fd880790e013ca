import { fork } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { DownloadProgress } from '../src/sources/hub/progress.js';
import { COMMIT, etagOf, type LocalHub, type LocalHubOptions } from './support/local-hub.js';
import { KIB, LocalHubClient, MODEL, NEEDED, repositoryFiles, tree } from './support/local-hub-client.js';

const MIB = 1024 * KIB;

let client: LocalHubClient;
let hub: LocalHub;
afterEach(() => client[Symbol.asyncDispose]());

async function start(files?: Record<string, Buffer>, options?: LocalHubOptions): Promise<LocalHub> {
  client = await LocalHubClient.start(files, options);
  hub = client.hub;
  return hub;
}

const fileOf = (path: string) => hub.files.get(path) as Buffer;
const blobOf = (path: string) => join(client.repository, 'blobs', etagOf(path, fileOf(path)));
const servedOf = (path: string) => hub.served.get(path) ?? 0;

function expectWhole(path = MODEL): void {
  expect(readFileSync(blobOf(path)).equals(fileOf(path))).toBe(true);
  expect(tree(join(client.repository, 'blobs')).filter((name) => name.includes('incomplete'))).toEqual([]);
}

describe('a download that is cut', () => {
  it.each([
    { name: 'in one range', rangeBytes: 64 * MIB },
    { name: 'in many ranges at once', rangeBytes: 256 * KIB },
  ])('at ten random points $name goes on from there', async ({ rangeBytes }) => {
    await start(repositoryFiles(4 * MIB));
    const cuts = fc.array(fc.integer({ min: 1, max: 250 * KIB }), { minLength: 10, maxLength: 10 });
    await fc.assert(
      fc.asyncProperty(cuts, async (points) => {
        hub.served.clear();
        rmSync(client.cache, { recursive: true, force: true });
        hub.fail(MODEL, ...points.map((cutAfter) => ({ cutAfter })));
        await client.locate('org/name', { runtime: { rangeBytes } });
        expectWhole();
        expect(hub.faults.get(MODEL)).toEqual([]);
        expect(servedOf(MODEL)).toBeGreaterThanOrEqual(4 * MIB);
        expect(servedOf(MODEL)).toBeLessThanOrEqual(4 * MIB * 1.01);
      }),
      { numRuns: 3 },
    );
  });

  it('before any byte came, again and again, is given up', async () => {
    await start();
    hub.fail(MODEL, ...Array.from({ length: 100 }, () => ({ cutAfter: 0 })));
    expect((await client.failure()).code).toBe('SOURCE_UNAVAILABLE');
  });

  it('by its signal leaves what it has to the next one', async () => {
    await start(repositoryFiles(4 * MIB));
    const controller = new AbortController();
    const reason = new Error('enough');
    const onProgress = ({ fileBytes, fileTotalBytes }: DownloadProgress) => {
      if (fileTotalBytes === 4 * MIB && fileBytes > MIB) controller.abort(reason);
    };
    let ticks = 0;
    const everyTick = { ...client.clock, now: () => (ticks += 1000), after: client.clock.after.bind(client.clock) };
    const cut = client.locate('org/name', { onProgress, signal: controller.signal, runtime: { clock: everyTick } });
    await expect(cut).rejects.toBe(reason);
    const parts = tree(join(client.repository, 'blobs')).filter((name) => name.includes('incomplete'));
    const kept = parts.reduce((sum, name) => sum + statSync(join(client.repository, 'blobs', name)).size, 0);
    expect(kept).toBeGreaterThan(MIB / 2);
    expect(tree(join(client.cache, '.locks'))).toEqual([]);
    hub.served.clear();
    await client.locate();
    expectWhole();
    expect(servedOf(MODEL)).toBe(4 * MIB - kept);
  });

  it('that Python has left is gone on with', async () => {
    await start();
    mkdirSync(join(client.repository, 'blobs'), { recursive: true });
    writeFileSync(`${blobOf(MODEL)}.incomplete`, fileOf(MODEL).subarray(0, 700_001));
    await client.locate();
    expectWhole();
    expect(servedOf(MODEL)).toBe(MIB - 700_001);
  });

  it('leaves Python nothing that has a hole', async () => {
    await start(repositoryFiles(4 * MIB));
    // The first range stops while the others go on: they must not be where Python would go on behind them.
    hub.fail(MODEL, { rangeStart: 0, stallAfter: 1000 });
    const controller = new AbortController();
    const whole = () => tree(join(client.repository, 'blobs')).filter((name) => /\.\d+\.incomplete/.test(name));
    const cut = client.locate('org/name', { signal: controller.signal, runtime: { rangeBytes: MIB } });
    await expect.poll(() => whole().length).toBe(3);
    controller.abort(new Error('enough'));
    await expect(cut).rejects.toThrow('enough');
    const beginning = readFileSync(`${blobOf(MODEL)}.incomplete`);
    expect(beginning.equals(fileOf(MODEL).subarray(0, beginning.length))).toBe(true);
    expect(beginning.length).toBeLessThanOrEqual(1000);
    hub.served.clear();
    await client.locate('org/name', { runtime: { rangeBytes: MIB } });
    expectWhole();
  });

  it('uses what was left with ranges of another size as far as it can', async () => {
    await start();
    const blobs = join(client.repository, 'blobs');
    mkdirSync(blobs, { recursive: true });
    const part = (offset: number, bytes: Buffer) => writeFileSync(`${blobOf(MODEL)}.${offset}.incomplete`, bytes);
    writeFileSync(`${blobOf(MODEL)}.incomplete`, fileOf(MODEL).subarray(0, 70_000));
    part(64 * KIB, fileOf(MODEL).subarray(64 * KIB, 128 * KIB)); // was being moved to the beginning
    part(256 * KIB, fileOf(MODEL).subarray(256 * KIB, 300 * KIB));
    part(100_000, Buffer.alloc(5)); // of another size
    part(512 * KIB, Buffer.alloc(65 * KIB)); // likewise
    part(MIB, Buffer.alloc(1)); // behind the end
    await client.locate();
    expectWhole();
    expect(servedOf(MODEL)).toBe(MIB - 128 * KIB - 44 * KIB);
  });

  it('in silence is made once more', async () => {
    await start();
    hub.onStall = () => setImmediate(() => client.clock.fallSilent());
    hub.fail(MODEL, { stallAfter: 10 * KIB }, { stallAfter: 0 }, { stallAfter: KIB });
    await client.locate();
    expectWhole();
  });
});

describe('bytes that are not those of the hub', () => {
  it.each([MODEL, 'tokenizer.json'])('make that file alone (%s) be fetched again', async (path) => {
    await start();
    const flips = Array.from({ length: path === MODEL ? 16 : 1 }, () => ({ flipAt: 5 }));
    hub.fail(path, ...flips);
    await client.locate();
    for (const each of NEEDED) {
      expectWhole(each);
      expect(servedOf(each)).toBe(fileOf(each).length * (each === path ? 2 : 1));
    }
  });

  it('again and again are an error, and nothing of them stays', async () => {
    await start();
    hub.fail('tokenizer.json', ...Array.from({ length: 9 }, () => ({ flipAt: 30_000 })));
    const error = await client.failure();
    expect(error.code).toBe('SOURCE_CORRUPT');
    expect(error.message).toContain("'tokenizer.json'");
    expect(servedOf('tokenizer.json')).toBe(3 * 30 * KIB);
    expect(existsSync(blobOf('tokenizer.json'))).toBe(false);
    expect(tree(client.repository).filter((name) => name.endsWith('incomplete'))).toEqual([]);
    hub.faults.clear();
    await client.locate();
    expectWhole('tokenizer.json');
  });

  it('that are more than was said are cut off', async () => {
    await start();
    hub.fail('config.json', { extraBytes: 100 });
    hub.fail(MODEL, { extraBytes: MIB }, { extraBytes: 1 });
    await client.locate();
    for (const each of NEEDED) expectWhole(each);
  });

  it('are all bytes, where a server ignores ranges', async () => {
    await start();
    const whole = Array.from({ length: 50 }, () => ({ ignoreRange: true }));
    hub.fail(MODEL, { ignoreRange: true, cutAfter: 100 * KIB }, ...whole);
    await client.locate();
    expectWhole();
  });

  it.each([
    { name: 'no JSON', answer: 'text' },
    { name: 'no list', answer: { error: 'no' } },
    { name: 'no hash', answer: [{ type: 'file', path: 'a', oid: '../../etc', size: 1 }] },
    { name: 'too much', answer: 'x'.repeat(17 * MIB) },
  ])('are refused as an answer: $name', async ({ answer }) => {
    await start();
    hub.listing = () => answer;
    expect((await client.failure()).code).toBe('SOURCE_UNAVAILABLE');
  });

  it('are refused as the next page of the list, from elsewhere or for ever', async () => {
    await start(repositoryFiles(), { pageSize: 3 });
    hub.nextPage = (url) => url.replace('127.0.0.1', 'localhost');
    expect((await client.failure()).code).toBe('SOURCE_UNAVAILABLE');
    hub.nextPage = (url) => url.replace(/cursor=\d+/, 'cursor=0');
    expect((await client.failure()).code).toBe('SOURCE_UNAVAILABLE');
  });
});

describe('two processes', () => {
  it('that want the same at once download it once', async () => {
    await start(repositoryFiles(8 * MIB));
    const run = () =>
      new Promise<Record<string, unknown>>((resolve, reject) => {
        const script = fileURLToPath(new URL('./support/local-hub-process.mjs', import.meta.url));
        const child = fork(script, ['org/name'], { env: client.processEnvironment, silent: true });
        const output: Buffer[] = [];
        child.stderr?.on('data', (piece) => output.push(piece));
        child.on('message', (message: { located?: Record<string, unknown> }) => {
          if (message.located) resolve(message.located);
        });
        child.on('exit', () => reject(new Error(Buffer.concat(output).toString())));
      });
    const [one, other] = await Promise.all([run(), run()]);
    expect(one).toEqual(other);
    expectWhole();
    for (const path of NEEDED) expect(servedOf(path)).toBe(fileOf(path).length);
  });

  it('do not wait for each other for ever: one that is killed leaves its part to the next', async () => {
    await start(repositoryFiles(8 * MIB));
    hub.fail(MODEL, { stallAfter: 5 * MIB });
    const script = fileURLToPath(new URL('./support/local-hub-process.mjs', import.meta.url));
    const child = fork(script, ['org/name'], { env: client.processEnvironment });
    await expect.poll(() => statSync(`${blobOf(MODEL)}.incomplete`, { throwIfNoEntry: false })?.size).toBe(5 * MIB);
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    expect(tree(join(client.cache, '.locks'))).toHaveLength(1);
    await client.locate('org/name', { runtime: { rangeBytes: 16 * MIB } });
    expectWhole();
    expect(servedOf(MODEL)).toBe(8 * MIB);
    expect(tree(join(client.cache, '.locks'))).toEqual([]);
  });

  it('or two loads of one process are the same to it', async () => {
    await start();
    const [one, other] = await Promise.all([client.locate(), client.locate()]);
    expect(one).toEqual(other);
    for (const path of NEEDED) expect(servedOf(path)).toBe(fileOf(path).length);
  });
});

describe('without the hub', () => {
  it('what is in the cache is used, and nothing is asked', async () => {
    await start();
    const first = await client.locate();
    hub.seen.length = 0;
    expect(await client.locate('org/name', { environment: { HF_HUB_OFFLINE: '1' } })).toEqual(first);
    expect(hub.seen).toEqual([]);
  });

  it('that is out of reach or not well, what is in the cache is used after one attempt', async () => {
    await start();
    const first = await client.locate();
    hub.seen.length = 0;
    hub.fail('revision', { status: 503 });
    expect(await client.locate()).toEqual(first);
    expect(hub.seen).toHaveLength(1);
    await hub.close();
    expect(await client.locate()).toEqual(first);
  });

  it('what is not in the cache is an error that says why', async () => {
    await start();
    const environment = { HF_HUB_OFFLINE: 'yes' };
    const nothing = await client.failure('org/name', { environment });
    expect(nothing.message).toContain('HF_HUB_OFFLINE');
    await client.locate();
    const other = await client.failure({ source: 'org/name', dtype: 'q8' }, { environment });
    expect(other.message).toContain('onnx/model_quantized.onnx');
    const commit = await client.failure({ source: 'org/name', revision: 'c'.repeat(40) }, { environment });
    await hub.close();
    const unreachable = await client.failure({ source: 'org/name', dtype: 'q8' });
    expect(unreachable.message).toContain(hub.url);
    for (const error of [nothing, other, commit, unreachable]) expect(error.code).toBe('SOURCE_UNAVAILABLE');
  });
});

/** A cache as the Python library leaves it. */
function layOutLikePython(paths: readonly string[]): void {
  const { repository } = client;
  mkdirSync(join(repository, 'refs'), { recursive: true });
  mkdirSync(join(repository, 'blobs'));
  writeFileSync(join(repository, 'refs/main'), COMMIT);
  for (const path of paths) {
    const etag = etagOf(path, fileOf(path));
    writeFileSync(join(repository, 'blobs', etag), fileOf(path));
    const link = join(repository, 'snapshots', COMMIT, path);
    mkdirSync(join(link, '..'), { recursive: true });
    symlinkSync(`${path.includes('/') ? '../../../' : '../../'}blobs/${etag}`, link);
  }
}

describe("the Python library's cache", () => {
  it('is used, and nothing is downloaded', async () => {
    await start();
    layOutLikePython(NEEDED);
    const located = await client.locate();
    expect(located).toMatchObject({ engine: 'transformers', revision: COMMIT });
    expect(hub.servedBytes).toBe(0);
    expect(hub.seen.map(({ path }) => path)).toEqual([
      '/api/models/org/name/revision/main',
      `/api/models/org/name/tree/${COMMIT}`,
    ]);
  });

  it.each(['1', undefined])('is used without the hub (HF_HUB_OFFLINE: %s)', async (offline) => {
    await start();
    layOutLikePython(NEEDED);
    if (!offline) await hub.close();
    const located = await client.locate('org/name', { environment: { HF_HUB_OFFLINE: offline } });
    expect(located).toMatchObject({ engine: 'transformers', fileBytes: MIB, revision: COMMIT });
    expect(located.digest).toMatch(/^[0-9a-f]{64}$/);
  });

  it('is completed with what it lacks, and only that', async () => {
    await start();
    layOutLikePython(NEEDED.filter((path) => path !== 'tokenizer.json'));
    await client.locate();
    expect([...hub.served.keys()]).toEqual(['tokenizer.json']);
  });

  it('without what is needed is told without the hub', async () => {
    await start();
    layOutLikePython(['config.json']);
    const error = await client.failure('org/name', { environment: { HF_HUB_OFFLINE: '1' } });
    expect(error.code).toBe('SOURCE_UNAVAILABLE');
    expect(error.message).toContain('no ONNX file');
  });

  it('of a system without links has files in their place, which are as good', async () => {
    await start();
    const snapshot = join(client.repository, 'snapshots', COMMIT);
    for (const path of NEEDED) {
      mkdirSync(join(snapshot, path, '..'), { recursive: true });
      writeFileSync(join(snapshot, path), fileOf(path));
    }
    await client.locate();
    expect(hub.servedBytes).toBe(0);
  });

  it.each(['1', undefined])('may keep blobs once for all repositories (HF_HUB_OFFLINE: %s)', async (offline) => {
    await start();
    layOutLikePython(NEEDED);
    const shared = join(client.cache, 'blobs/ab', 'ab'.repeat(32));
    mkdirSync(dirname(shared), { recursive: true });
    renameSync(blobOf(MODEL), shared);
    symlinkSync(`../../blobs/ab/${'ab'.repeat(32)}`, blobOf(MODEL));
    const located = await client.locate('org/name', { environment: { HF_HUB_OFFLINE: offline } });
    expect(located.fileBytes).toBe(MIB);
    expect(hub.servedBytes).toBe(0);
    // The name of a shared blob is no sha256: that of the blob itself is.
    await client.locate('org/name', { lockfile: { path: join(client.home, 'lock'), frozen: false } });
    expect((await client.locate()).digest).toBe(located.digest);
  });

  it('may be one in which nothing can be noted', async () => {
    await start();
    layOutLikePython(NEEDED);
    writeFileSync(join(client.repository, '.splitlearn'), 'in the way');
    hub.refs.set('main/2', COMMIT); // where there is a file `main` already
    await client.locate();
    await client.locate({ source: 'org/name', revision: 'main/2' });
    expect(hub.servedBytes).toBe(0);
  });

  it('in which a link is broken is mended', async () => {
    await start();
    layOutLikePython(NEEDED.filter((path) => path !== MODEL));
    mkdirSync(join(client.repository, 'snapshots', COMMIT, 'onnx'));
    symlinkSync('../../../blobs/nothing', join(client.repository, 'snapshots', COMMIT, MODEL));
    const { file } = await client.locate();
    expect(readFileSync(file).equals(fileOf(MODEL))).toBe(true);
  });
});

describe('a disk that has too little room', () => {
  it('is found before anything is written, and nothing stays', async () => {
    await start();
    const error = await client.failure('org/name', { runtime: { freeBytes: async () => MIB } });
    expect(error.code).toBe('INSUFFICIENT_DISK');
    expect(error.message).toContain(`${MIB} left`);
    expect(error.message).toContain('HF_HUB_CACHE');
    expect(readdirSync(client.home)).toEqual([]);
    expect(hub.servedBytes).toBe(0);
  });

  it('has room enough for the rest of what is there already', async () => {
    await start();
    layOutLikePython(NEEDED.filter((path) => path !== MODEL));
    writeFileSync(`${blobOf(MODEL)}.incomplete`, fileOf(MODEL).subarray(0, MIB - 10 * KIB));
    const room = 10 * KIB + 64 * KIB;
    expect((await client.failure('org/name', { runtime: { freeBytes: async () => room - 1 } })).code).toBe(
      'INSUFFICIENT_DISK',
    );
    await client.locate('org/name', { runtime: { freeBytes: async () => room } });
  });
});

describe('nothing leads out of the folder of the repository', () => {
  it.each([
    '../secret.onnx',
    'onnx/../../../secret.onnx',
    '/etc/model.onnx',
    'onnx\\..\\model.onnx',
    'C:model.onnx',
    'model.onnx\0',
    'onnx//model.onnx',
    './model.onnx',
  ])('by a path of the hub: %j', async (path) => {
    await start();
    hub.listing = (entries) => [...entries, { type: 'file', path, oid: 'a'.repeat(40), size: 1 }];
    const error = await client.failure();
    expect(error.code).toBe('SOURCE_INVALID');
    expect(error.message).toContain('lead out');
    expect(readdirSync(client.home)).toEqual([]);
  });

  it.each(['../main', '/etc', 'a\\b', 'a\0'])('by a revision: %j', async (revision) => {
    await start();
    expect((await client.failure({ source: 'org/name', revision })).code).toBe('INVALID_CONFIG');
  });

  it('by a link in the place of a file', async () => {
    await start();
    layOutLikePython(NEEDED.filter((path) => path !== 'config.json'));
    writeFileSync(join(client.home, 'secret'), fileOf('config.json'));
    symlinkSync(join(client.home, 'secret'), join(client.repository, 'snapshots', COMMIT, 'config.json'));
    const error = await client.failure();
    expect(error.code).toBe('SOURCE_INVALID');
    expect(error.message).toContain(client.repository);
    expect((await client.failure('org/name', { environment: { HF_HUB_OFFLINE: '1' } })).code).toBe('SOURCE_INVALID');
  });

  it.each(['blobs', `snapshots/${COMMIT}/onnx`, `snapshots/${COMMIT}`, 'refs', '.splitlearn'])(
    'by a link in the place of the folder %s',
    async (folder) => {
      await start();
      const outside = join(client.home, 'outside');
      mkdirSync(outside);
      mkdirSync(join(client.repository, folder, '..'), { recursive: true });
      symlinkSync(outside, join(client.repository, folder));
      expect((await client.failure()).code).toBe('SOURCE_INVALID');
      expect(readdirSync(outside)).toEqual([]);
    },
  );

  it('by a link in the place of a part', async () => {
    await start();
    const outside = join(client.home, 'outside');
    writeFileSync(outside, '');
    mkdirSync(join(client.repository, 'blobs'), { recursive: true });
    symlinkSync(outside, `${blobOf(MODEL)}.incomplete`);
    symlinkSync(outside, `${blobOf('config.json')}`);
    expect((await client.failure()).code).toMatch(/SOURCE_/);
    expect(readFileSync(outside)).toHaveLength(0);
  });

  it('though the cache itself, and the folder of a repository, may be links to where there is room', async () => {
    await start();
    const elsewhere = join(client.home, 'elsewhere');
    mkdirSync(elsewhere);
    mkdirSync(client.cache, { recursive: true });
    symlinkSync(elsewhere, client.repository);
    await client.locate();
    expect(tree(join(elsewhere, 'blobs'))).toHaveLength(NEEDED.length);
  });
});

it('random faults, one after the other, end with the right bytes', async () => {
  await start(repositoryFiles(256 * KIB));
  hub.onStall = () => setImmediate(() => client.clock.fallSilent());
  const place = fc.nat(100 * KIB);
  const fault = fc.oneof(
    place.map((cutAfter) => ({ cutAfter })),
    place.map((stallAfter) => ({ stallAfter })),
    place.map((flipAt) => ({ flipAt })),
    fc.integer({ min: 500, max: 599 }).map((status) => ({ status })),
    fc.constantFrom({ extraBytes: 100 }, { status: 429, headers: { 'retry-after': '1' } }, { ignoreRange: true }, {}),
  );
  const faults = fc.tuple(...NEEDED.map(() => fc.array(fault, { maxLength: 8 })));
  await fc.assert(
    fc.asyncProperty(faults, fc.constantFrom(16 * KIB, 100_000, MIB), async (each, rangeBytes) => {
      rmSync(client.cache, { recursive: true, force: true });
      hub.faults.clear();
      for (const [index, path] of NEEDED.entries()) hub.fail(path, ...(each[index] ?? []));
      try {
        await client.locate('org/name', { runtime: { rangeBytes, attempts: 30 } });
        for (const path of NEEDED) expectWhole(path);
      } catch (error) {
        // Three bytes turned one after the other are more than it puts up with.
        expect(error).toMatchObject({ code: 'SOURCE_CORRUPT' });
        expect(each.flat().filter((one) => 'flipAt' in one).length).toBeGreaterThanOrEqual(3);
      }
      expect(tree(join(client.cache, '.locks'))).toEqual([]);
    }),
    { numRuns: 30 },
  );
});
