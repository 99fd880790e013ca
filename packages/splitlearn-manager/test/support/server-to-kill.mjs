// A server with a model that a test kills: prints the model's pid and what is logged, and ends only when it is killed.
//   node server-to-kill.mjs <onnx file>
import { tensor } from '@splitlearn/comm';
import { ManagedClient, ManagedServer } from '@splitlearn/manager';

const logger = { warn: console.log, error: console.log };
const server = new ManagedServer({ modelId: 'loop', source: process.argv[2] }, { port: 0, logger });
const port = await server.start();
console.log(`pid ${server.getStatus().models[0].pid}`);
const client = new ManagedClient(`127.0.0.1:${port}`, { timeoutMs: Number.POSITIVE_INFINITY });
await client.compute({ n: tensor(BigInt64Array.of(2n ** 40n), []) }, { requestId: 'forever' });
