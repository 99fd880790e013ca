import type { Logger } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { AdminActions, ReloadOutcome } from '../http/admin-actions.js';
import type { AdminServer } from '../http/admin-server.js';
import { loadWithProgress } from '../http/load-progress.js';
import { modelStatus } from '../http/model-status.js';
import type { AsyncModelManager } from '../models/async-model-manager.js';
import type { HealthWatch } from '../monitoring/health-watch.js';
import type { MetricsCollector } from '../monitoring/metrics-collector.js';
import type { ModelRouter } from '../routing/model-router.js';
import { parseRouteConfig } from '../routing/route-config.js';
import type { ResolvedServerConfig } from './server-config.js';

/** What the admin server is about. */
export interface Administered {
  readonly modelManager: AsyncModelManager;
  readonly metrics: MetricsCollector;
  readonly router: ModelRouter;
  readonly healthWatch: HealthWatch;
  readonly status: () => object;
  readonly reload: (() => Promise<ReloadOutcome>) | undefined;
}

/** Makes the admin server of a server. Imported here, so that only those who want one pay for it. */
export async function createAdminServer(
  { host, port, token }: NonNullable<ResolvedServerConfig['admin']>,
  administered: Administered,
  logger: Logger,
): Promise<AdminServer> {
  const { AdminServer } = await import('../http/admin-server.js');
  const actions = actionsOn(administered);
  return new AdminServer({ host, port, actions, logger, ...(token !== undefined && { token }) });
}

function actionsOn({ modelManager, metrics, router, healthWatch, status, reload }: Administered): AdminActions {
  return {
    health: () => healthWatch.update(),
    metrics: async () => ({ contentType: metrics.contentType, text: await metrics.metrics() }),
    status,
    models: () => {
      const { requestsByModel } = metrics.getStatistics();
      return modelManager.listModels().map((info) => modelStatus(info, requestsByModel[info.modelId]));
    },
    load: (config, onProgress) => loadWithProgress(modelManager, config, onProgress),
    unload: async (modelId, options) => {
      try {
        return await modelManager.unloadModel(modelId, options);
      } finally {
        healthWatch.update();
      }
    },
    plan: (config) => modelManager.plan(config),
    reload: async () => {
      if (reload) return reload();
      throw new ManagerError(
        'INVALID_CONFIG',
        'this server was started without a configuration that could be read again',
      );
    },
    setRoute: async (name, route) => {
      await router.setRoute(name, parseRouteConfig(name, route));
    },
    removeRoute: (name) => router.removeRoute(name),
  };
}
