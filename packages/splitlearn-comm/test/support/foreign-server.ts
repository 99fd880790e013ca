import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';

/** A server that is no more than grpc-js, and answers the service's calls with whatever bytes it likes. */
export interface ForeignServer extends AsyncDisposable {
  readonly address: string;
}

export async function foreignServer(implementation: UntypedServiceImplementation): Promise<ForeignServer> {
  const server = new Server();
  const definition: ServiceDefinition = {
    Compute: method('Compute', false),
    ComputeStream: method('ComputeStream', true),
    GetServiceInfo: method('GetServiceInfo', false),
  };
  server.addService(definition, implementation);
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  return {
    address: `127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.forceShutdown();
    },
  };
}

function method(name: string, streaming: boolean) {
  const bytes = (message: Uint8Array) => Buffer.from(message);
  return {
    path: `/splitlearn.comm.v1.ComputeService/${name}`,
    requestStream: streaming,
    responseStream: streaming,
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes,
  };
}
