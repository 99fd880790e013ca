// A managed server with one model that gives back what it is given, as a peer of rpc/main.mjs.
import { tensor } from '@splitlearn/comm';
import { ManagedClient, ManagedServer } from '@splitlearn/manager';

export async function serve(_listen, { file, isolation }) {
  const server = new ManagedServer({ modelId: 'identity', source: file, isolation, threads: 1 }, { port: 0 });
  const port = await server.start();
  return { address: `127.0.0.1:${port}`, close: () => server.stop({ graceMs: 0 }) };
}

export async function connect(address) {
  const client = new ManagedClient(address);
  return {
    echo: async (data) => (await client.compute({ x: tensor(data, [data.length]) })).y.data,
    close: () => client.close(),
  };
}
