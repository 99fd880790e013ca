// @splitlearn/comm, over TCP or a unix socket.
import { AsyncGRPCComputeServer, AsyncLambdaComputeFunction, GRPCComputeClient, tensor } from '@splitlearn/comm';

const maxMessageLength = 256 * 2 ** 20;

export async function serve(listen) {
  const computeFn = new AsyncLambdaComputeFunction(({ input }) => ({ output: input }));
  const at = listen.startsWith('unix:') ? { address: listen } : { port: 0 };
  const server = new AsyncGRPCComputeServer({ computeFn, maxMessageLength, ...at });
  const port = await server.start();
  return { address: at.address ?? `127.0.0.1:${port}`, close: () => server.stop({ graceMs: 0 }) };
}

/** `unary`: a gRPC call a tensor, instead of the stream that comm keeps open where the server offers it. */
export async function connect(address, { unary = false }) {
  const path = unary ? { exchange: false } : {}; // the client option that forces unary calls
  const client = new GRPCComputeClient(address, { maxMessageLength, ...path });
  return {
    echo: async (data) => (await client.compute(tensor(data, [data.length]))).data,
    close: () => client.close(),
  };
}
