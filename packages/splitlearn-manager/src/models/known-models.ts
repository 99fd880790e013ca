import { isDeepStrictEqual } from 'node:util';
import { ManagerError } from '../errors.js';
import type { ResolvedModelConfig } from './model-config.js';
import type { RegisteredModel } from './registered-model.js';

/** The models that a manager knows, by their ids. */
export class KnownModels {
  readonly #models = new Map<string, RegisteredModel>();

  /** All of them, in no particular order. */
  all(): Iterable<RegisteredModel> {
    return this.#models.values();
  }

  /** All of them, in the order in which they were given. */
  sorted(): RegisteredModel[] {
    const models = [...this.#models.values()];
    return models.length < 2 ? models : models.sort((one, other) => one.order - other.order);
  }

  get(modelId: string): RegisteredModel | undefined {
    return this.#models.get(modelId);
  }

  /** @throws ManagerError `MODEL_NOT_FOUND`. */
  find(modelId: string): RegisteredModel {
    const model = this.#models.get(modelId);
    if (model) return model;
    const known = this.sorted()
      .map(({ modelId }) => `'${modelId}'`)
      .join(', ');
    throw new ManagerError('MODEL_NOT_FOUND', `there is no model '${modelId}' here; loaded: ${known || 'none'}`);
  }

  /**
   * The model of that id, where there is one already.
   *
   * @throws ManagerError `MODEL_ALREADY_LOADED` where it has another configuration.
   */
  same(modelId: string, config: ResolvedModelConfig): RegisteredModel | undefined {
    const present = this.#models.get(modelId);
    if (!present || isDeepStrictEqual(present.config, config)) return present;
    throw new ManagerError(
      'MODEL_ALREADY_LOADED',
      `a model '${modelId}' is loaded with another configuration; unload it first, or give this one another modelId`,
    );
  }

  add(model: RegisteredModel): void {
    this.#models.set(model.modelId, model);
  }

  forget(model: RegisteredModel): void {
    // Who still holds it, such as a reload that waits, must not begin another life of it.
    model.removal ??= new ManagerError('MODEL_NOT_FOUND', `there is no model '${model.modelId}' here any more`);
    model.refuse(model.removal);
    clearTimeout(model.idleTimer);
    if (this.#models.get(model.modelId) === model) this.#models.delete(model.modelId);
  }
}
