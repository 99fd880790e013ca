import { ManagerError } from '../errors.js';
import type { Engine } from './engine.js';

export const loadModuleModel: Engine = async ({ modelId }) => {
  throw new ManagerError('MODEL_LOAD_FAILED', `model '${modelId}' is a module`);
};
