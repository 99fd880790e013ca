import { fileURLToPath } from 'node:url';
import type { Server } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';

// Apart from the server, and imported by it only when it starts, because what is imported here takes half as long again
// as all the rest.

const PROTO_FOLDER = fileURLToPath(new URL('../../proto', import.meta.url));

/**
 * How a service is, in the words of `grpc.health.v1` (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
 * `SERVICE_UNKNOWN`: there is none of that name, or none any more.
 */
export type ServiceHealth = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';

/** What a server serves beside compute: `grpc.health.v1.Health` and server reflection. */
export class StandardServices {
  readonly #health = new HealthImplementation();
  readonly #told = new Map<string, ServiceHealth>();

  addTo(server: Server): void {
    this.#health.addToServer(server);
    const definition = loadSync('splitlearn/comm/v1/compute.proto', { includeDirs: [PROTO_FOLDER], keepCase: true });
    new ReflectionService(definition).addToServer(server);
  }

  /** Whoever watches the service is told, once for each change. */
  setHealth(service: string, health: ServiceHealth): void {
    if ((this.#told.get(service) ?? 'SERVICE_UNKNOWN') === health) return;
    if (health !== 'SERVICE_UNKNOWN') {
      this.#told.set(service, health);
      this.#health.setStatus(service, health);
      return;
    }
    this.#told.delete(service);
    // The library takes no name back: those who watch are told as it tells those who watch an unknown one, and then the
    // name goes, so that a check finds nothing. Where it no longer keeps its names so, a check answers SERVICE_UNKNOWN.
    this.#health.setStatus(service, health as 'UNKNOWN');
    const { statusMap } = this.#health as unknown as { readonly statusMap?: Map<string, string> };
    if (statusMap instanceof Map) statusMap.delete(service);
  }
}
