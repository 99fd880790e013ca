// The same model and client without the manager: comm's server, and a thread with the model in it.
import { AsyncGRPCComputeServer, AsyncModelComputeFunction, WorkerExecutor } from '@splitlearn/comm';

export { connect } from './managed.mjs';

export async function serve(_listen, { file }) {
  process.env.ORT_DISABLE_TELEMETRY = '1'; // as the manager does
  const computeFn = new AsyncModelComputeFunction({
    model: new URL('./onnx-model.mjs', import.meta.url),
    executor: new WorkerExecutor({ threads: 1, data: file }),
  });
  const server = new AsyncGRPCComputeServer({ computeFn, port: 0 });
  const port = await server.start();
  return { address: `127.0.0.1:${port}`, close: () => server.stop({ graceMs: 0 }) };
}
