import { describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import { ModelRouter } from './model-router.js';

function router(...modelIds: string[]): ModelRouter {
  return new ModelRouter({ modelManager: { modelIds: () => modelIds } });
}

function failure(work: () => unknown): ManagerError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(ManagerError);
    return error as ManagerError;
  }
  return expect.fail('nothing was thrown');
}

describe('a request', () => {
  it('goes to the model that it names, whether that is there or not', () => {
    expect(router('a', 'b').routeToModel({ model: 'b' })).toBe('b');
    expect(router('a').routeToModel({ model: 'c' })).toBe('c');
    expect(router().routeToModel({ model: 'c' })).toBe('c');
  });

  it('goes to the only model there is when it names none', () => {
    expect(router('a').routeToModel({})).toBe('a');
    expect(router('a').routeToModel()).toBe('a');
    expect(router('a').routeToModel({ model: '' })).toBe('a');
  });

  it('that names none of several is told which there are, in their order', () => {
    const error = failure(() => router('b', 'a').routeToModel({}));
    expect(error.code).toBe('MODEL_AMBIGUOUS');
    expect(error.message).toContain('name one of: b, a');
  });

  it('that comes when there is no model is told how there will be one', () => {
    const error = failure(() => router().routeToModel({}));
    expect(error.code).toBe('MODEL_NOT_FOUND');
    expect(error.message).toContain('loadModel');
  });
});
