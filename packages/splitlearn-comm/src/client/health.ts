import type { Client, MethodDefinition } from '@grpc/grpc-js';
import { service as healthService } from 'grpc-health-check';
import { unaryCall, type WireCallOptions } from './channel-calls.js';

/** What a health check answers (https://github.com/grpc/grpc/blob/master/doc/health-checking.md). */
export type HealthStatus = 'UNKNOWN' | 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

const CHECK = healthService.Check as MethodDefinition<{ service: string }, { status: HealthStatus }>;

export async function checkHealth(
  client: Client,
  address: string,
  service: string,
  options: WireCallOptions,
): Promise<HealthStatus> {
  const { status } = await unaryCall(client, address, CHECK, { service }, options);
  return status;
}
