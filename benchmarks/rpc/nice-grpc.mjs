// nice-grpc, unary. It takes grpc-js's service definitions, so only the library differs from proto-loader.mjs.
import { createChannel, createClient, createServer } from 'nice-grpc';
import { answer, fromResponse, packageDefinition, toRequest, UNLIMITED } from './contract.mjs';

const { Compute } = packageDefinition['splitlearn.comm.v1.ComputeService'];

export async function serve(listen) {
  const server = createServer(UNLIMITED);
  server.add({ Compute }, { Compute: async (request) => answer(request) });
  const port = await server.listen(listen);
  return { address: `127.0.0.1:${port}`, close: () => server.forceShutdown() };
}

export async function connect(address) {
  const channel = createChannel(address, undefined, UNLIMITED);
  const client = createClient({ Compute }, channel);
  return {
    echo: async (tensor) => fromResponse(await client.Compute(toRequest(tensor))),
    close: () => channel.close(),
  };
}
