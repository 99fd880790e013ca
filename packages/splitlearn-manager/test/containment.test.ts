// Models that take more memory than they may, whether they mean to or not. None but they themselves notice.
import { copyFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tensor } from '@splitlearn/comm';
import { describe, expect, it, onTestFinished } from 'vitest';
import { startThreadHost } from '../dist/hosts/thread-host.js';
import { compute, failure, fixture, hostOptions, start } from './fixtures/hosts.js';
import { isAlive, someTensors, watchProcesses } from './support/managed.js';

watchProcesses();

const fill = fixture('onnx/fill.onnx');
const grows = fixture('modules/grows.mjs');
/** A runner by itself takes some 100 MB. */
const limit = { maxMemoryBytes: 400_000_000 };
/** Zeros in this shape. Eight gigabytes are far beyond the limit, and take long enough to be seen. */
const zeros = (count: bigint) => ({ shape: tensor(BigInt64Array.of(count)) });
const tooMany = zeros(2n ** 31n);

/** Asks another model until some work is done; every answer must be right. */
async function whileAnotherAnswers<T>(work: () => Promise<T>): Promise<T> {
  const other = await start(fixture('onnx/identity-float32.onnx'), { modelId: 'other' });
  let done = false;
  const working = work().finally(() => (done = true));
  let answers = 0;
  do {
    expect((await compute(other, someTensors)).y?.data).toEqual(someTensors.x?.data);
    answers++;
  } while (!done || answers < 20);
  return working;
}

describe('a process that takes more than maxMemoryBytes', () => {
  it('is ended: its calls and its death say how much it took, and another model answers all the while', async () => {
    const host = await start(fill, limit);
    expect((await compute(host, zeros(2n))).filled).toEqual(tensor([0, 0]));
    const errors = await whileAnotherAnswers(() =>
      Promise.all([tooMany, zeros(1n), zeros(1n)].map((inputs) => failure(compute(host, inputs)))),
    );
    for (const error of [...errors, await host.died, await failure(compute(host, zeros(1n)))]) {
      expect(error.code).toBe('MODEL_MEMORY_EXCEEDED');
      const [, took, most] = /'m' took (\d+) bytes .* maxMemoryBytes of (\d+), and was ended/.exec(error.message) ?? [];
      expect(Number(most)).toBe(limit.maxMemoryBytes);
      expect(Number(took)).toBeGreaterThan(limit.maxMemoryBytes);
    }
    expect(await host.memoryBytes()).toBe(0);
    expect(isAlive(host.pid as number)).toBe(false);
  });

  it('is ended while it loads, as with weights that are a file full of nothing', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sparse-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const file = join(folder, 'model.onnx');
    copyFileSync(fixture('onnx/external-data-sparse.onnx'), file);
    writeFileSync(join(folder, 'sparse.bin'), '');
    truncateSync(join(folder, 'sparse.bin'), 2 ** 30);
    const error = await whileAnotherAnswers(() => failure(start(file, limit)));
    expect(error.code).toBe('MODEL_MEMORY_EXCEEDED');
    expect(error.message).toContain('bytes of memory to load, more than its maxMemoryBytes of 400000000');
  });

  it('is ended for what its JavaScript keeps, not for its garbage', async () => {
    const host = await start(grows, { maxMemoryBytes: 200 * 2 ** 20 });
    // Twice as much as there may be, of which a tenth is held at a time.
    expect((await compute(host, {}, { megabytes: 400, keep: 10 })).kept?.data).toEqual(Float32Array.of(10));
    const error = await failure(compute(host, {}, { megabytes: 4_000, keep: 4_000 }));
    expect(error.code).toBe('MODEL_MEMORY_EXCEEDED');
  });

  it('cannot be a thread', async () => {
    const error = await failure(startThreadHost(hostOptions(fill, limit)));
    expect(error.code).toBe('INVALID_CONFIG');
    for (const part of ["'m'", 'maxMemoryBytes', "isolation 'process'"]) expect(error.message).toContain(part);
  });
});

describe('a process in which a run ran out of memory', () => {
  it('is done with, and ends when it has finished what it was given', async () => {
    const host = await start(fill);
    const calls = [compute(host, zeros(10n ** 16n)), compute(host, zeros(2n)), compute(host, zeros(3n))] as const;
    expect((await failure(calls[0])).code).toBe('INSUFFICIENT_MEMORY');
    // Whoever comes next gets another process, at once.
    const died = await host.died;
    expect(died.code).toBe('INSUFFICIENT_MEMORY');
    expect(died.message).toContain("the process of model 'm' ran out of memory, and is replaced");
    expect((await calls[1]).filled).toEqual(tensor([0, 0]));
    expect((await calls[2]).filled).toEqual(tensor([0, 0, 0]));
    await expect.poll(() => isAlive(host.pid as number)).toBe(false);
    expect(await failure(compute(host, zeros(1n)))).toMatchObject({ code: 'MODEL_DRAINING' });
    expect(await host.memoryBytes()).toBe(0);
  });

  it('may be stopped before that', async () => {
    const host = await start(fill);
    const calls = [compute(host, zeros(10n ** 16n)), compute(host, zeros(2n ** 26n))] as const;
    const second = calls[1].then(
      () => undefined,
      (error) => error,
    );
    await failure(calls[0]);
    await host.stop();
    expect(isAlive(host.pid as number)).toBe(false);
    await second;
  });
});

describe('a small file that claims to be a large model', () => {
  it('is refused, or ended, and another model answers all the while', async () => {
    const file = fixture('onnx/external-data-terabyte.onnx');
    const error = await whileAnotherAnswers(() => failure(start(file, limit)));
    // Which of the two depends on how freely the system promises memory.
    expect(error.code).toMatch(/^(INSUFFICIENT_MEMORY|MODEL_MEMORY_EXCEEDED)$/);
    expect(error.message).toContain("model 'm'");
  });

  it.each(['external-data-above', 'external-data-absolute'])('cannot read what is not its own: %s', async (name) => {
    const error = await whileAnotherAnswers(() => failure(start(fixture(`onnx/${name}.onnx`))));
    expect(error.code).toBe('MODEL_LOAD_FAILED');
    expect(error.message).toContain('names a file outside of its folder');
  });
});
