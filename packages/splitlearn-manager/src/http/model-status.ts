import type { ManagedModelInfo } from '../models/model-info.js';
import type { ModelStatistics } from '../monitoring/metrics-collector.js';
import type { ModelStatus } from './admin-actions.js';

/** What is known of a model and of its requests, together. */
export function modelStatus(
  info: ManagedModelInfo,
  statistics?: Pick<ModelStatistics, 'requests' | 'failed' | 'latencyMs'>,
): ModelStatus {
  return {
    ...info,
    inFlight: info.leases,
    requests: statistics?.requests ?? 0,
    failed: statistics?.failed ?? 0,
    p50Ms: statistics?.latencyMs.p50 ?? 0,
    p99Ms: statistics?.latencyMs.p99 ?? 0,
  };
}
