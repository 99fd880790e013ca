// A model that is a JavaScript file of the user's.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type CommError, callContext, type Model, tensor } from '@splitlearn/comm';
import { describe, expect, it, onTestFinished } from 'vitest';
import { loadModuleModel } from '../src/engines/module.js';
import { compute, fixture, hostOptions, start } from './fixtures/hosts.js';
import { callWith, collect, managerError } from './fixtures/tiny-gpt2.js';
import { watchProcesses } from './support/managed.js';

watchProcesses();

const x = tensor([1, 2, 3]);

async function load(file: string): Promise<Model> {
  return loadModuleModel(hostOptions(file));
}

/** Loads a file with this text in it. */
async function loadText(text: string, ending = 'mjs'): Promise<Model> {
  const folder = mkdtempSync(join(tmpdir(), 'module-'));
  onTestFinished(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, `model.${ending}`), text);
  return load(join(folder, `model.${ending}`));
}

async function thrownBy(work: unknown): Promise<CommError> {
  return Promise.resolve(work).then(
    () => expect.fail('nothing was thrown'),
    (reason) => reason,
  );
}

describe('in a process of its own, a JavaScript file', () => {
  it('computes, streams, describes itself and is disposed of', async () => {
    const host = await start(fixture('modules/doubles.mjs'), { modelId: 'doubles', threads: 3, device: 'cuda:1' });
    expect(host.info).toMatchObject({
      inputs: [{ name: 'x', dtype: 'float32', shape: ['n'] }],
      attributes: { modelId: 'doubles', folder: fixture('modules'), threads: '3', device: 'cuda:1' },
    });
    expect(await compute(host, { x })).toEqual({ y: tensor([2, 4, 6]) });
    const requests = (async function* () {
      yield { inputs: { x: tensor([3]) } };
    })();
    const pieces = await collect(
      (async function* () {
        for await (const { outputs } of host.computeFn.stream?.(requests, callContext()) ?? []) yield outputs;
      })(),
    );
    expect(pieces.map(({ count }) => count?.data[0])).toEqual([1, 2, 3]);
    await host.stop();
    expect(host.log.lines.join()).toContain('doubles is disposed of');
  });

  it('passes its own errors on where they are meant for the caller, and logs the others', async () => {
    const host = await start(fixture('modules/throws.mjs'));
    expect(await thrownBy(compute(host, { x }, { what: 'comm' }))).toMatchObject({
      code: 'OUT_OF_RANGE',
      reason: 'NO_PAGE',
      message: 'no such page',
    });
    const error = await thrownBy(compute(host, { x }, { what: 'own' }));
    expect(error.code).toBe('INTERNAL');
    expect(error.message).not.toContain('swordfish');
    expect(await host.log.until('the password is swordfish')).toContain('failed: Error');
  });

  it.each([
    ['nothing', /'run' gave undefined in place of named tensors/],
    ['numbers', /'run' gave what is no tensor: 'y' is no tensor: pass \{ dtype, shape, data \}/],
    ['lies', /'run' gave what is no tensor: tensor 'y' of shape \[2\] needs 2 elements, but its data has 3/],
  ])('that gives what is no tensor is found out: %s', async (what, message) => {
    const host = await start(fixture('modules/throws.mjs'));
    const error = await thrownBy(compute(host, { x }, { what }));
    expect(error).toMatchObject({ code: 'INTERNAL', reason: 'INVALID_RESULT' });
    expect(error.message).toMatch(message);
    expect(error.message).toContain("model 'm' is at fault");
  });
});

describe('what the file exports', () => {
  const model = '{ run: ({ x }) => ({ y: x }) }';
  it.each([
    ['export const run = ({ x }) => ({ y: x });', 'mjs'],
    [`export default ${model};`, 'mjs'],
    [`export const load = () => (${model});`, 'mjs'],
    [`export default { load: async () => (${model}) };`, 'mjs'],
    [`module.exports = ${model};`, 'cjs'],
    [`exports.load = () => (${model});`, 'cjs'],
  ])('may be: %s', async (text, ending) => {
    const loaded = await loadText(text, ending);
    expect(await loaded.run({ x }, callWith())).toEqual({ y: x });
    expect(loaded.stream).toBeUndefined();
    expect(loaded.info).toBeUndefined();
    expect(loaded.dispose?.()).toBeUndefined();
  });

  it.each<[string, RegExp]>([
    ['', /exports nothing, but neither a function 'load'.* nor a function 'run'/],
    ['export const ran = 1;', /exports 'ran', but neither/],
    ['export default 1;', /exports 'default', but neither/],
    ['export const load = 1;', /exports a 'load' that is no function/],
    ['export const run = 1;', /exports 'run', but neither a function/],
    ['export const load = () => {};', /the 'load' of .* returned undefined, but must return the model/],
    ['export const load = () => ({});', /returned a model without a function 'run'/],
    ['export const load = () => ({ run() {}, stream: 1 });', /returned a model whose 'stream' is no function/],
    ['export const run = () => {}; export const dispose = 1;', /whose 'dispose' is no function/],
    [
      'export const load = () => { throw new TypeError("no weights"); };',
      /failed in its 'load': TypeError: no weights/,
    ],
    ['export const load = () => { throw "a string"; };', /failed in its 'load': 'a string'/],
    ['export const load = (', /cannot be imported: /],
    ['import "./missing.mjs";', /cannot be imported: .*missing\.mjs/],
    ['throw new Error("at once");', /cannot be imported: Error: at once/],
  ])('cannot be: %s', async (text, message) => {
    await expect(loadText(text)).rejects.toEqual(managerError('MODEL_LOAD_FAILED', message));
    await expect(loadText(text)).rejects.toEqual(
      managerError('MODEL_LOAD_FAILED', /^(the 'load' of )?model 'm' \(.*\)/),
    );
  });

  it('may fail in its own words', async () => {
    const failing = loadText(
      `export const load = () => {
         throw Object.assign(new Error('no licence'), { toCommError() { return this; } });
       };`,
    );
    await expect(failing).rejects.toThrow(/^no licence$/);
  });
});
