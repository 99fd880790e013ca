// Models that take more than they may, or reach for what is not theirs, as seen by those who use the server: the one at
// fault is refused or ended with an error that says why, and the other is served as if nothing had been.
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { tensor } from '@splitlearn/comm';
import type { ManagerError, ModelConfig } from '@splitlearn/manager';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  childProcesses,
  commFailure,
  identity,
  isAlive,
  managerFailure,
  onnxFile,
  pidOf,
  type Served,
  serve,
  someTensors,
  temporaryFiles,
  watchProcesses,
} from './support/managed.js';

watchProcesses();

/** A runner by itself takes some 140 MB. */
const maxMemoryBytes = 400_000_000;
const greedy: ModelConfig = { modelId: 'greedy', source: onnxFile('onnx/fill'), maxMemoryBytes };
/** Zeros in this shape. */
const zeros = (count: bigint) => ({ shape: tensor(BigInt64Array.of(count)) });
/** Eight gigabytes: far beyond the limit, and it takes long enough to be seen. */
const tooMany = zeros(2n ** 31n);

let served: Served;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'containment-'));
  served = await serve([greedy, identity]);
});
afterAll(async () => {
  rmSync(folder, { recursive: true });
  await served.close();
});

/** After each test there are the two models and nothing else, and nobody uses them. */
afterEach(async () => {
  expect((await served.client.listModels()).map(({ name, state }) => ({ name, state }))).toEqual([
    { name: 'greedy', state: 'READY' },
    { name: 'identity', state: 'READY' },
  ]);
  expect(served.server.modelManager.listModels().map(({ leases }) => leases)).toEqual([0, 0]);
});

/** Asks the other model again and again until some work is done. Every answer must be right. */
async function whileTheOtherAnswers<T>(work: () => Promise<T>): Promise<T> {
  const pid = pidOf(served, 'identity');
  let done = false;
  const working = work().finally(() => (done = true));
  let answers = 0;
  do {
    const { y } = await served.client.infer(someTensors, { model: 'identity', timeoutMs: 10_000 });
    expect(y?.data).toEqual(someTensors.x?.data);
    answers++;
  } while (!done || answers < 20);
  expect(pidOf(served, 'identity')).toBe(pid);
  return working;
}

/** What a load fails with, while the other model answers. Nothing may be left of it. */
async function refusal(config: ModelConfig & { modelId: string }): Promise<ManagerError> {
  const before = whatIsThere();
  const error = await whileTheOtherAnswers(() => managerFailure(served.server.loadModel(config)));
  expect(whatIsThere()).toEqual(before);
  expect(served.server.modelManager.getModel(config.modelId)).toBe(undefined);
  expect(served.server.resourceManager.getReservation(config.modelId)).toBe(undefined);
  const asked = await commFailure(served.client.infer(someTensors, { model: config.modelId }));
  expect(asked).toMatchObject({ code: 'NOT_FOUND', reason: 'MODEL_NOT_FOUND' });
  return error;
}

/** All that a model takes or is listed in. The memory of those that are there is measured now and then, so not that. */
function whatIsThere() {
  return {
    models: served.server.modelManager.modelIds(),
    statistics: served.server.modelManager.getStatistics().models.map(({ modelId, state }) => ({ modelId, state })),
    threads: served.server.resourceManager.getCurrentUsage().reservedThreads,
    processes: childProcesses(),
    files: temporaryFiles(),
  };
}

describe('a model that exceeds its maxMemoryBytes in a run', () => {
  it('tells its caller how much it took and what to do, and is served again by a fresh process', async () => {
    const before = served.server.modelManager.getModelInfo('greedy');
    const counted = served.server.getStatus().requestsByModel.greedy;
    const error = await whileTheOtherAnswers(() =>
      commFailure(served.client.compute(tooMany, { model: 'greedy', requestId: 'too many' })),
    );
    expect(error).toMatchObject({ code: 'RESOURCE_EXHAUSTED', reason: 'MODEL_MEMORY_EXCEEDED', retryable: false });
    const said = /'greedy' took (\d+) bytes of memory for its requests, more than its maxMemoryBytes of (\d+)/;
    const [, took, most] = said.exec(error.message) ?? [];
    expect(Number(most)).toBe(maxMemoryBytes);
    expect(Number(took)).toBeGreaterThan(maxMemoryBytes);
    expect(error.message).toContain('was ended; raise maxMemoryBytes, or give the model less at a time');
    expect(await served.log.until('for its requests')).toBe(error.message);

    // Whoever comes now waits for the new process and never learns of the old one.
    expect((await served.client.compute(zeros(2n), { model: 'greedy' })).filled).toEqual(tensor([0, 0]));
    const after = served.server.modelManager.getModelInfo('greedy');
    expect(after).toMatchObject({ state: 'READY', leases: 0, loads: before.loads });
    expect(after).not.toHaveProperty('failure');
    expect(after.pid).not.toBe(before.pid);
    expect(isAlive(before.pid as number)).toBe(false);

    const { models, requestsByModel } = served.server.modelManager.getStatistics();
    expect(models.map(({ modelId, state, pid }) => ({ modelId, state, pid }))).toEqual([
      { modelId: 'greedy', state: 'READY', pid: after.pid },
      { modelId: 'identity', state: 'READY', pid: pidOf(served, 'identity') },
    ]);
    expect(requestsByModel.greedy).toMatchObject({
      succeeded: (counted?.succeeded ?? 0) + 1,
      failed: (counted?.failed ?? 0) + 1,
    });
    expect(requestsByModel.identity?.failed).toBe(0);
    // It counts with what the new process takes, as soon as that has been measured.
    await expect
      .poll(() => served.server.resourceManager.getReservation('greedy')?.usedBytes)
      .toSatisfy((bytes) => bytes > 10_000_000 && bytes < maxMemoryBytes);
  });

  it('fails those that wait for it alike, and nobody else', async () => {
    const work = [tooMany, zeros(1n), zeros(1n)];
    const errors = await whileTheOtherAnswers(() =>
      Promise.all(work.map((inputs) => commFailure(served.client.compute(inputs, { model: 'greedy' })))),
    );
    expect(new Set(errors.map(({ reason, message }) => `${reason}: ${message}`)).size).toBe(1);
    expect(errors[0]?.reason).toBe('MODEL_MEMORY_EXCEEDED');
    expect((await served.client.compute(zeros(1n), { model: 'greedy' })).filled).toEqual(tensor([0]));
  });
});

describe('a source that leads out of its folder', () => {
  beforeAll(() => {
    // Outside of every source lies a model that is as good as any: only where it lies can be why it is refused.
    for (const name of ['secret.onnx', 'elsewhere/model.onnx', 'model/a.onnx']) {
      mkdirSync(join(folder, name, '..'), { recursive: true });
      copyFileSync(onnxFile('onnx/identity-float32'), join(folder, name));
    }
    const links = {
      'by-link/model.onnx': '../secret.onnx',
      'by-absolute-link/model.onnx': join(folder, 'secret.onnx'),
      'by-linked-folder/onnx': '../elsewhere',
      'by-linked-tokenizer/tokenizer.json': '../secret.onnx',
    };
    for (const [name, target] of Object.entries(links)) {
      mkdirSync(join(folder, name, '..'));
      symlinkSync(target, join(folder, name));
    }
    copyFileSync(onnxFile('onnx/identity-float32'), join(folder, 'by-linked-tokenizer/model.onnx'));
    writeFileSync(join(folder, 'by-linked-tokenizer/config.json'), '{}');
  });

  const outside = 'lies outside of it';
  it.each([
    { what: 'a path up to a folder of the system', config: () => upTo('/etc'), says: 'no ONNX file' },
    { what: 'a path to a file above', config: () => ({ ...inside('model'), file: '../secret.onnx' }), says: outside },
    {
      what: 'a path that comes back down',
      config: () => ({ ...inside('model'), file: '../model/../elsewhere/model.onnx' }),
      says: outside,
    },
    { what: 'a link', config: () => inside('by-link'), says: outside },
    { what: 'a link that is asked for', config: () => ({ ...inside('by-link'), file: 'model.onnx' }), says: outside },
    { what: 'an absolute link', config: () => inside('by-absolute-link'), says: outside },
    { what: 'a linked folder', config: () => inside('by-linked-folder'), says: outside },
    { what: 'a link beside the model', config: () => inside('by-linked-tokenizer'), says: outside },
  ])('is refused and leaves nothing, while the other model answers: by $what', async ({ config, says }) => {
    const error = await refusal({ modelId: 'intruder', ...config() });
    expect(error.code).toBe('SOURCE_INVALID');
    expect(error.message).toContain(says);
  });

  it('to where nothing is says that there is no model', async () => {
    const error = await refusal({ modelId: 'intruder', source: join(folder, 'model/../../nowhere/etc') });
    expect(error.code).toBe('SOURCE_NOT_FOUND');
    expect(error.message).toContain('check the spelling');
  });

  it.each(['external-data-above', 'external-data-absolute'])('cannot be its weights either: %s', async (name) => {
    const error = await refusal({ modelId: 'intruder', source: onnxFile(`onnx/${name}`) });
    expect(error.code).toBe('MODEL_LOAD_FAILED');
    expect(error.message).toContain('names a file outside of its folder');
  });

  it('cannot be a link to weights', async () => {
    const { source } = inside('linked-weights');
    mkdirSync(source);
    copyFileSync(onnxFile('onnx/external-data'), join(source, 'model.onnx'));
    copyFileSync(onnxFile('onnx/external-data').replace(/onnx$/, 'bin'), join(folder, 'weights.bin'));
    symlinkSync('../weights.bin', join(source, 'external-data.bin'));
    const error = await refusal({ modelId: 'intruder', source });
    expect(error.code).toBe('MODEL_LOAD_FAILED');
    expect(error.message).toContain('names a file outside of its folder');
  });

  function inside(name: string): { readonly source: string } {
    return { source: join(folder, name) };
  }

  /** From wherever the tests run. */
  function upTo(path: string): { readonly source: string } {
    const source = relative(process.cwd(), path);
    expect(source).toMatch(/^\.\.\//);
    return { source };
  }
});

describe('a model that exceeds its maxMemoryBytes while it loads', () => {
  /** A folder with a model that sums up a gigabyte of nothing. */
  function sparse(name: string): string {
    const source = join(folder, name);
    mkdirSync(source);
    copyFileSync(onnxFile('onnx/external-data-sparse'), join(source, 'model.onnx'));
    writeFileSync(join(source, 'sparse.bin'), '');
    truncateSync(join(source, 'sparse.bin'), 2 ** 30);
    return source;
  }

  it('leaves nothing, while the other model answers, and can be loaded when its file is mended', async () => {
    const config = { modelId: 'heavy', source: sparse('heavy'), maxMemoryBytes };
    const error = await refusal(config);
    expect(error.code).toBe('MODEL_MEMORY_EXCEEDED');
    expect(error.message).toMatch(
      /'heavy' took \d+ bytes of memory to load, more than its maxMemoryBytes of 400000000/,
    );

    copyFileSync(onnxFile('onnx/identity-float32'), join(config.source, 'model.onnx'));
    expect(await served.server.loadModel(config)).toMatchObject({ state: 'READY', loads: 1 });
    expect((await served.client.infer(someTensors, { model: 'heavy' })).y?.data).toEqual(someTensors.x?.data);
    await served.server.unloadModel('heavy');
  });

  it('can be loaded when its maxMemoryBytes is raised', async () => {
    // Less than a process takes that has no model in it yet.
    const config = { modelId: 'writer', source: 'tiny-gpt2', maxMemoryBytes: 50_000_000 };
    const error = await refusal(config);
    expect(error.code).toBe('MODEL_MEMORY_EXCEEDED');
    expect(error.message).toContain('raise maxMemoryBytes');

    await served.server.loadModel({ ...config, maxMemoryBytes });
    const { text } = await served.client.infer('In the beginning', { model: 'writer', maxNewTokens: 1 });
    expect(text).toBe(' of');
    await served.server.unloadModel('writer');
  });

  it('fails all who load it or wait for it alike', async () => {
    const config = { modelId: 'shared', source: sparse('shared'), maxMemoryBytes };
    const before = whatIsThere();
    const loads = [1, 2, 3].map(() => managerFailure(served.server.loadModel(config)));
    await expect.poll(() => served.server.modelManager.getModel('shared')?.state).toBe('LOADING');
    const asked = commFailure(served.client.infer(someTensors, { model: 'shared' }));
    const errors = await whileTheOtherAnswers(() => Promise.all(loads));
    expect(new Set(errors.map(({ code, message }) => `${code}: ${message}`)).size).toBe(1);
    expect(errors[0]?.code).toBe('MODEL_MEMORY_EXCEEDED');
    expect(await asked).toMatchObject({ reason: 'MODEL_MEMORY_EXCEEDED', message: errors[0]?.message });
    expect(whatIsThere()).toEqual(before);
    expect(served.server.resourceManager.getReservation('shared')).toBe(undefined);
  });
});
