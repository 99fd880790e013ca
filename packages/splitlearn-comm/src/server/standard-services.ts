import { fileURLToPath } from 'node:url';
import type { Server } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import { SERVICE_NAME } from '../grpc/service.js';

// Apart from the server, and imported by it only when it starts, because what is imported here takes half as long again
// as all the rest.

const PROTO_FOLDER = fileURLToPath(new URL('../../proto', import.meta.url));

/** What a server serves beside compute: `grpc.health.v1.Health` and server reflection. */
export class StandardServices {
  readonly #health = new HealthImplementation({ '': 'NOT_SERVING', [SERVICE_NAME]: 'NOT_SERVING' });

  addTo(server: Server): void {
    this.#health.addToServer(server);
    const definition = loadSync('splitlearn/comm/v1/compute.proto', { includeDirs: [PROTO_FOLDER], keepCase: true });
    new ReflectionService(definition).addToServer(server);
  }

  setHealth(health: 'SERVING' | 'NOT_SERVING'): void {
    for (const service of ['', SERVICE_NAME]) this.#health.setStatus(service, health);
  }
}
