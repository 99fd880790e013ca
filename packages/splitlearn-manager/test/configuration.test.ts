// A configuration file is changed while a server runs: what it says is done, and no request fails for it.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { callContext } from '@splitlearn/comm';
import {
  AsyncManagedComputeFunction,
  AsyncModelManager,
  ManagedClient,
  type ModelConfig,
  ModelRouter,
} from '@splitlearn/manager';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { applyReload, type ReloadError } from '../dist/configuration/apply-reload.js';
import type { ConfigurationFile } from '../dist/configuration/configuration-file.js';
import { planReload } from '../dist/configuration/plan-reload.js';
import { reloadTarget } from '../dist/configuration/reload-target.js';
import { resolveConfiguration } from '../dist/configuration/resolve.js';
import {
  childProcesses,
  countTo,
  identity,
  Log,
  loop,
  someTensors,
  temporaryFiles,
  watchProcesses,
} from './support/managed.js';

watchProcesses();

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'configuration-'));
  file = join(folder, 'splitlearn.json');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function configure(content: ConfigurationFile): void {
  writeFileSync(file, JSON.stringify({ port: 0, ...content }));
}

function model(modelId: string, config: Partial<ModelConfig> = {}): ModelConfig {
  return { ...identity, modelId, isolation: 'thread', ...config };
}

function route(...models: string[]) {
  return { targets: models.map((id) => ({ model: id })) };
}

/** A manager and a router as a file says, and requests for a route that never end. */
async function setUp(content: ConfigurationFile) {
  const log = new Log();
  configure(content);
  const first = await resolveConfiguration({ file, env: {} });
  const modelManager = new AsyncModelManager({ logger: log });
  await Promise.all(first.models.map((config) => modelManager.loadModel(config)));
  const router = new ModelRouter({ modelManager, routes: first.config.routes });
  const managed = new AsyncManagedComputeFunction({ router, modelManager, metrics: modelManager.metrics });
  const answers = new Map<string, number>();
  const failures: unknown[] = [];
  let over = false;
  const ask = async () => {
    while (!over) {
      try {
        const { model: by = '' } = await managed.compute({ model: 'chat', inputs: someTensors }, callContext());
        answers.set(by, (answers.get(by) ?? 0) + 1);
      } catch (error) {
        failures.push(error);
      }
    }
  };
  const asking = Array.from({ length: 8 }, ask);
  let serves: Parameters<typeof planReload>[0] = first;
  return {
    ...{ modelManager, router, answers, failures },
    reload: async (next: ConfigurationFile) => {
      configure(next);
      const plan = planReload(serves, await resolveConfiguration({ file, env: {} }));
      const report = await applyReload(plan, reloadTarget(modelManager, router));
      serves = report.serves;
      return report;
    },
    [Symbol.asyncDispose]: async () => {
      over = true;
      await Promise.all(asking);
      await modelManager.shutdown({ graceMs: 0 });
    },
  };
}

describe('a reload of a manager with requests under way', () => {
  it('loads, sends requests elsewhere and unloads, and not one request fails', async () => {
    const old = { models: [model('a'), model('kept')], routes: { chat: route('a') } };
    await using served = await setUp(old);
    const { answers, failures, modelManager } = served;
    for (const [index, id] of ['b', 'c', 'd'].entries()) {
      await expect.poll(() => answers.get(index === 0 ? 'a' : String.fromCharCode(97 + index))).toBeGreaterThan(20);
      const before = String.fromCharCode(97 + index);
      const { changes } = await served.reload({ models: [model('kept'), model(id)], routes: { chat: route(id) } });
      expect(changes).toEqual([`load model '${id}'`, `set route 'chat' to '${id}'`, `unload model '${before}'`]);
      expect(modelManager.modelIds()).toEqual(['kept', id]);
    }
    await expect.poll(() => answers.get('d')).toBeGreaterThan(20);
    expect(failures).toEqual([]);
    expect(modelManager.getModelInfo('kept').loads).toBe(1);
  });

  it('puts a model that is configured anew in the place of the one that runs, and not one request fails', async () => {
    const routes = { chat: route('a') };
    await using served = await setUp({ models: [model('a')], routes });
    const { answers, failures, modelManager } = served;
    for (const [loads, maxQueue] of [
      [2, 64],
      [3, 128],
    ] as const) {
      const had = answers.get('a') ?? 0;
      const { changes } = await served.reload({ models: [model('a', { maxQueue, pinned: loads === 2 })], routes });
      expect(changes[0]).toMatch(/^reload model 'a' \((pinned, )?maxQueue/);
      expect(modelManager.getModelInfo('a')).toMatchObject({ loads, state: 'READY', pinned: loads === 2 });
      await expect.poll(() => answers.get('a')).toBeGreaterThan(had + 20);
    }
    const broken = { models: [model('a', { source: join(folder, 'nowhere.onnx') })], routes };
    await expect(served.reload(broken)).rejects.toMatchObject({ code: 'SOURCE_NOT_FOUND', done: [] });
    await expect(modelManager.reloadModel('a', { config: model('b') })).rejects.toMatchObject({
      code: 'INVALID_CONFIG',
    });
    const { source, loads } = modelManager.getModelInfo('a');
    expect([source, loads]).toEqual([identity.source, 3]);
    // What runs is what the manager takes for the same.
    await modelManager.loadModel(model('a', { maxQueue: 128 }));
    expect(failures).toEqual([]);
  });

  it('that fails leaves the old as it was, and goes on when the file is mended', async () => {
    await using served = await setUp({ models: [model('a')], routes: { chat: route('a') } });
    const { answers, failures, modelManager, router } = served;
    const routes = { chat: route('c') };
    const wrong = { models: [model('b'), model('c', { source: join(folder, 'nowhere.onnx') })], routes };
    const error: ReloadError = await served.reload(wrong).then(
      () => expect.fail('it was done'),
      (reason) => reason,
    );
    expect([error.code, error.done, error.left]).toEqual([
      'SOURCE_NOT_FOUND',
      ["load model 'b'"],
      ["load model 'c'", "set route 'chat' to 'c'", "unload model 'a'"],
    ]);
    expect(modelManager.modelIds()).toEqual(['a', 'b']);
    expect(router.getRoute('chat')).toMatchObject({ targets: [{ model: 'a' }] });
    const had = answers.get('a') ?? 0;
    await expect.poll(() => answers.get('a')).toBeGreaterThan(had);
    await served.reload({ models: [model('b'), model('c')], routes });
    expect(modelManager.modelIds()).toEqual(['b', 'c']);
    await expect.poll(() => answers.get('c')).toBeGreaterThan(0);
    expect(failures).toEqual([]);
  });
});

// Windows has no such signals.
describe.skipIf(process.platform === 'win32')('a server in a process of its own', () => {
  let child: ChildProcess;
  // The processes of its models see that it is gone, and end and tidy up after themselves.
  afterEach(async () => {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
    await expect.poll(temporaryFiles).toEqual([]);
    await expect.poll(childProcesses).toBe(0);
  });

  async function start() {
    const script = fileURLToPath(new URL('./support/configured-server.mjs', import.meta.url));
    child = spawn(process.execPath, [script, file], { stdio: ['ignore', 'pipe', 'pipe'] });
    const log = new Log();
    for (const input of [child.stdout, child.stderr]) {
      if (input) createInterface({ input }).on('line', (line) => log.warn(line));
    }
    const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));
    const port = (await log.until('port ')).replace('port ', '');
    return { log, ended, client: new ManagedClient(`127.0.0.1:${port}`, { timeoutMs: 20_000 }) };
  }

  it('reloads on SIGHUP, tells what is wrong with the file, and goes on', async () => {
    configure({ models: [model('a')] });
    const { log, client } = await start();
    const names = async () => (await client.listModels()).map(({ name }) => name);
    configure({ models: [model('a'), model('b')] });
    child.kill('SIGHUP');
    expect(await log.until('changes: ')).toBe("changes: load model 'b'");
    expect(await names()).toEqual(['a', 'b']);
    writeFileSync(file, '{ "prot": 1 }');
    child.kill('SIGHUP');
    expect(await log.until('error: ')).toMatch(
      /SIGHUP: .*splitlearn\.json:1:3: prot is unknown; did you mean 'port'\?/,
    );
    expect(await names()).toEqual(['a', 'b']);
    expect((await client.infer(someTensors, { model: 'b' })).y?.shape).toEqual([3]);
    await client.close();
  });

  it('finishes what is under way on SIGTERM, and ends with 0', async () => {
    configure({ models: [loop] });
    const { log, ended, client } = await start();
    const answer = client.compute(countTo(1e6), { requestId: 'last' });
    await log.until('began last');
    child.kill('SIGTERM');
    await log.until('SIGTERM: finishing');
    expect(Object.keys(await answer)).toEqual(['count']);
    expect(await ended).toBe(0);
    await client.close();
  });

  it('ends at once on a second SIGTERM', async () => {
    configure({ models: [loop] });
    const { log, ended, client } = await start();
    const answer = client.compute(countTo(1e12), { requestId: 'endless' }).catch(({ code }) => code);
    await log.until('began endless');
    child.kill('SIGTERM');
    await log.until('SIGTERM: finishing');
    child.kill('SIGTERM');
    expect(await ended).toBe(143);
    // Which of them depends on what of the connection's end comes first.
    expect(['UNAVAILABLE', 'INTERNAL']).toContain(await answer);
    await client.close();
  });
});
