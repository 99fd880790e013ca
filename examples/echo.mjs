// comm alone: a function behind gRPC, and a call of it.
import { AsyncGRPCComputeServer, AsyncLambdaComputeFunction, GRPCComputeClient, tensor } from '@splitlearn/comm';

const server = new AsyncGRPCComputeServer({ computeFn: new AsyncLambdaComputeFunction((inputs) => inputs), port: 0 });
const port = await server.start();

const client = new GRPCComputeClient(`127.0.0.1:${port}`);
const input = tensor(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3]);
console.log(await client.compute(input));

await client.close();
await server.stop();
