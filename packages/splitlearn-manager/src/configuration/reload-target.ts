import type { ModelConfig } from '../models/model-config.js';
import type { RouteConfig } from '../routing/route-config.js';
import type { ReloadTarget } from './apply-reload.js';

/** What a reload needs of a model manager. */
interface ReloadableModels {
  loadModel(config: ModelConfig): Promise<unknown>;
  reloadModel(modelId: string, options: { readonly config?: ModelConfig; readonly graceMs?: number }): Promise<unknown>;
  unloadModel(modelId: string): Promise<unknown>;
}

/** What a reload needs of a router. */
interface ReloadableRoutes {
  setRoute(name: string, route: RouteConfig): Promise<unknown>;
  removeRoute(name: string): void;
}

/** A model manager and the router in front of it, for `applyReload`. */
export function reloadTarget(modelManager: ReloadableModels, router: ReloadableRoutes): ReloadTarget {
  return {
    loadModel: (model) => modelManager.loadModel(model),
    reloadModel: (modelId, config) => modelManager.reloadModel(modelId, { config }),
    unloadModel: (modelId) => modelManager.unloadModel(modelId),
    setRoute: (name, route) => router.setRoute(name, route),
    removeRoute: (name) => router.removeRoute(name),
  };
}
