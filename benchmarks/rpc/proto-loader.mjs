// grpc-js with proto-loader, as people write it: a unary call a tensor, or (`stream`) messages on one open stream.
import { promisify } from 'node:util';
import { credentials, loadPackageDefinition, Server, ServerCredentials } from '@grpc/grpc-js';
import { answer, fromResponse, packageDefinition, toRequest, UNLIMITED } from './contract.mjs';

const { ComputeService } = loadPackageDefinition(packageDefinition).splitlearn.comm.v1;

export async function serve(listen) {
  const server = new Server(UNLIMITED);
  server.addService(ComputeService.service, {
    Compute: (call, callback) => callback(null, answer(call.request)),
    ComputeStream(call) {
      call.on('data', (request) => call.write(answer(request)));
      call.on('end', () => call.end());
    },
  });
  const port = await promisify(server.bindAsync.bind(server))(listen, ServerCredentials.createInsecure());
  return { address: `127.0.0.1:${port}`, close: () => server.forceShutdown() };
}

export async function connect(address, { stream = false }) {
  const client = new ComputeService(address, credentials.createInsecure(), UNLIMITED);
  return { echo: stream ? echoOnStream(client) : echoByCall(client), close: () => client.close() };
}

function echoByCall(client) {
  const compute = promisify(client.Compute.bind(client));
  return async (tensor) => fromResponse(await compute(toRequest(tensor)));
}

function echoOnStream(client) {
  const call = client.ComputeStream();
  const waiting = new Map();
  let lastId = 0;
  call.on('data', (response) => {
    waiting.get(response.request_id)(fromResponse(response));
    waiting.delete(response.request_id);
  });
  return (tensor) => {
    const id = String(++lastId);
    call.write(toRequest(tensor, id));
    return new Promise((resolve) => waiting.set(id, resolve));
  };
}
