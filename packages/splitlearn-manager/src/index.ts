// One line each: a server and a client.
export {
  type FinishReason,
  type GeneratedPiece,
  type GeneratedText,
  type GenerateOptions,
  ManagedClient,
} from './quickstart/managed-client.js';
export { ManagedServer, type ManagedServerOptions } from './quickstart/managed-server.js';

// The parts, for servers that are put together in another way.
export {
  AsyncModelManager,
  type AsyncModelManagerOptions,
  type ManagedModelInfo,
  type UnloadOptions,
  type UnloadReport,
} from './models/async-model-manager.js';
export { ModelLease } from './models/lease.js';
export { ModelConfig } from './models/model-config.js';
export type { ModelState } from './models/model-state.js';
export { type ManagerStatistics, MetricsCollector, type ModelStatistics } from './monitoring/metrics-collector.js';
export type { ResourceProbes } from './resources/probes.js';
export {
  type Reservation,
  ResourceManager,
  type ResourceManagerOptions,
  type ResourceUsage,
} from './resources/resource-manager.js';
export { ModelRouter, type ModelRouterOptions } from './routing/model-router.js';
export {
  AsyncManagedComputeFunction,
  type AsyncManagedComputeFunctionOptions,
} from './server/async-managed-compute-function.js';
export {
  AsyncManagedServer,
  type AsyncManagedServerOptions,
  type ServerStatus,
} from './server/async-managed-server.js';
export { ServerConfig } from './server/server-config.js';
export { ManagerError, type ManagerErrorCode } from './errors.js';
