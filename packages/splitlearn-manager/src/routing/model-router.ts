import type { ComputeRequest } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';

export interface ModelRouterOptions {
  /** Whose models requests are routed to. */
  readonly modelManager: { modelIds(): readonly string[] };
}

/** Decides which model a request is for. */
export class ModelRouter {
  readonly #modelManager: ModelRouterOptions['modelManager'];

  constructor({ modelManager }: ModelRouterOptions) {
    this.#modelManager = modelManager;
  }

  /**
   * The model that the request names; where it names none, the only one there is. Whether a named one exists is the
   * model manager's to say.
   *
   * @throws ManagerError `MODEL_AMBIGUOUS` when the request names none and there are several; `MODEL_NOT_FOUND` when
   * there is none at all.
   */
  routeToModel(request: Pick<ComputeRequest, 'model'> = {}): string {
    if (request.model) return request.model;
    const [only, ...others] = this.#modelManager.modelIds();
    if (only === undefined) {
      throw new ManagerError('MODEL_NOT_FOUND', 'no model is loaded here yet; load one with loadModel()');
    }
    if (others.length === 0) return only;
    throw new ManagerError(
      'MODEL_AMBIGUOUS',
      `the request names no model, and there are several; name one of: ${[only, ...others].join(', ')}`,
    );
  }
}
