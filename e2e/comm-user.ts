// A program of somebody who uses comm in TypeScript. packed-install.mjs compiles it against the packed types.
import {
  AsyncGRPCComputeServer,
  AsyncLambdaComputeFunction,
  CommError,
  GRPCComputeClient,
  type Tensor,
  type Tensors,
  tensor,
} from '@splitlearn/comm';

const echo = new AsyncLambdaComputeFunction((inputs: Tensors): Tensors => inputs);
const server = new AsyncGRPCComputeServer({ computeFn: echo, host: '127.0.0.1', port: 0 });
const port: number = await server.start();
const client = new GRPCComputeClient(`127.0.0.1:${port}`, { timeoutMs: 5000 });
try {
  const output: Tensor = await client.compute(tensor([1, 2, 3]));
  const outputs: Tensors = await client.compute({ input: tensor([1, 2, 3]) });
  console.log(output.shape, Object.keys(outputs));
} catch (error) {
  if (error instanceof CommError) console.error(error.code);
}
await client.close();
await server.stop({ graceMs: 1000 });
