// comm alone: a model of your own in worker threads, so that what it computes never holds up the server.
import {
  AsyncGRPCComputeServer,
  AsyncModelComputeFunction,
  GRPCComputeClient,
  tensor,
  WorkerExecutor,
} from '@splitlearn/comm';

const model = new URL('./scaling-model.mjs', import.meta.url);
const executor = new WorkerExecutor({ threads: 2, data: { factor: 10 } });
const server = new AsyncGRPCComputeServer({ computeFn: new AsyncModelComputeFunction({ model, executor }), port: 0 });
const port = await server.start();

const client = new GRPCComputeClient(`127.0.0.1:${port}`);
const { outputs, timing } = await client.computeWithTiming(tensor([1, 2, 3]));
console.log(outputs);
console.log(
  `queue ${timing.queueMs.toFixed(2)} ms, compute ${timing.computeMs.toFixed(2)} ms, all ${timing.totalMs.toFixed(2)} ms`,
);

await client.close();
await server.stop();
