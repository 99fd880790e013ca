import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { failure, knownModel, settle } from '../../test/support/models.js';
import { ManagerError } from '../errors.js';
import { KnownModels } from './known-models.js';
import { parseModelConfig } from './model-config.js';

function setUp() {
  const models = new KnownModels();
  const model = knownModel('m', {}, () => new Promise(() => {}));
  models.add(model);
  return { models, model };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe('a model that is known', () => {
  it('is found by its id, and where it is not there, those that are there are named', () => {
    const { models, model } = setUp();
    expect(models.find('m')).toBe(model);
    expect(models.get('other')).toBe(undefined);
    expect(() => models.find('other')).toThrow("there is no model 'other' here; loaded: 'm'");
    models.forget(model);
    expect(() => models.find('m')).toThrow("there is no model 'm' here; loaded: none");
  });

  it('is the same when it is configured the same', () => {
    const { models, model } = setUp();
    expect(models.same('m', { ...model.config })).toBe(model);
    expect(models.same('other', model.config)).toBe(undefined);
    const other = parseModelConfig({ source: 'm', pinned: true });
    expect(() => models.same('m', other)).toThrow("a model 'm' is loaded with another configuration");
  });
});

describe('a model that is forgotten', () => {
  it('refuses those who wait for it, and begins nothing and does nothing more', async () => {
    const { models, model } = setUp();
    const waiting = failure(model.acquire());
    await settle();
    model.idleTimer = setTimeout(() => expect.fail('it is gone'), 1_000);
    models.forget(model);
    expect((await waiting).code).toBe('MODEL_NOT_FOUND');
    expect((await failure(model.load())).code).toBe('MODEL_NOT_FOUND');
    expect(model.removing.signal.aborted).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
    expect([...models.all()]).toEqual([]);
  });

  it('says why it is removed, where that was said before', async () => {
    const { models, model } = setUp();
    const removal = new ManagerError('MODEL_DRAINING', 'it is being unloaded');
    model.removal = removal;
    models.forget(model);
    expect(await failure(model.load())).toBe(removal);
  });

  it('does not take another with it that has its id by then', () => {
    const { models, model } = setUp();
    models.forget(model);
    const next = knownModel('m');
    models.add(next);
    models.forget(model);
    expect(models.get('m')).toBe(next);
  });
});
