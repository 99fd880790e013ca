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
export type { AdmissionPlan, EvictionReason, EvictionRecord } from './models/admission.js';
export {
  AsyncModelManager,
  type AsyncModelManagerOptions,
  type LoadOptions,
  type UnloadOptions,
  type UnloadReport,
} from './models/async-model-manager.js';
export {
  type EvictionCandidate,
  type EvictionPolicy,
  leastRecentlyUsed,
  type Shortage,
} from './models/eviction.js';
export type { DownloadProgress } from './sources/hub/progress.js';
export type { LockfileOptions } from './sources/lockfile.js';
export type { ManagerEvents } from './models/manager-events.js';
export type { ManagedModelInfo } from './models/model-info.js';
export { ModelLease } from './models/lease.js';
export { ModelConfig } from './models/model-config.js';
export type { ModelState } from './models/model-state.js';
export { type ManagerStatistics, MetricsCollector, type ModelStatistics } from './monitoring/metrics-collector.js';
export type { Device } from './resources/devices.js';
export type { GpuInfo } from './resources/gpu.js';
export {
  estimateMemory,
  kvCacheBytes,
  type MemoryEstimate,
  type MemoryEstimateOptions,
} from './resources/memory-estimate.js';
export { MemoryPressure, type MemoryPressureOptions, type MemoryPressureState } from './resources/memory-pressure.js';
export type { ResourceProbes } from './resources/probes.js';
export {
  type GpuUsage,
  type Reservation,
  type ReserveRequest,
  type ResourceCheck,
  type ResourceDemand,
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

// For models that are JavaScript files.
export type { ModelModule, ModuleModel, ModuleModelOptions } from './engines/module.js';

export { ManagerError, type ManagerErrorCode } from './errors.js';
