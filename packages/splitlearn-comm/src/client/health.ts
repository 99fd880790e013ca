import type { Client, MethodDefinition } from '@grpc/grpc-js';
import { unaryCall, type WireCallOptions } from './channel-calls.js';

/** What a health check answers (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). */
export type HealthStatus = 'UNKNOWN' | 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

export async function checkHealth(
  client: Client,
  address: string,
  service: string,
  options: WireCallOptions,
): Promise<HealthStatus> {
  // Not above: few clients ask, and it takes long to import.
  const { service: healthService } = await import('grpc-health-check');
  const check = healthService.Check as MethodDefinition<{ service: string }, { status: HealthStatus }>;
  const { status } = await unaryCall(client, address, check, { service }, options);
  return status;
}
