import type { ModelInfo } from '@splitlearn/comm';
import type { ManagedModelInfo } from '../models/model-info.js';
import type { RouteInfo } from './route.js';

/** Routes as a server lists them beside its models: their names, too, are what a request may name. */
export function routesAsModels(
  router: { listRoutes(): readonly RouteInfo[] },
  modelManager: { getModel(modelId: string): ManagedModelInfo | undefined },
): ModelInfo[] {
  return router.listRoutes().map(({ name, strategy, targets }) => {
    const models = targets.flatMap(({ model }) => modelManager.getModel(model) ?? []);
    const { state = 'UNLOADED', inputs, outputs } = models.find((model) => model.state === 'READY') ?? models[0] ?? {};
    const attributes = { route: strategy, targets: targets.map(({ model }) => model).join(', ') };
    return { name, state, ...(inputs && { inputs }), ...(outputs && { outputs }), attributes };
  });
}
