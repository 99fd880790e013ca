// The two servers of the health benchmark: `managed`, and its peer `event-loop`, which is what one writes oneself.
import { fileURLToPath } from 'node:url';
import { AsyncGRPCComputeServer, AsyncModelComputeFunction } from '@splitlearn/comm';
import { ManagedServer } from '@splitlearn/manager';

const [kind] = process.argv.slice(2);
const server = kind === 'managed' ? managed() : await eventLoop();
process.send(await server.start());
process.once('disconnect', async () => {
  await server.stop({ graceMs: 0 });
  process.exit();
});

function managed() {
  return new ManagedServer({ source: 'tiny-gpt2', engine: 'onnx' }, { port: 0 });
}

async function eventLoop() {
  const { InferenceSession, Tensor } = await import('onnxruntime-node');
  const folder = new URL('../models/tiny-gpt2/', import.meta.resolve('@splitlearn/manager'));
  const session = await InferenceSession.create(fileURLToPath(new URL('onnx/model.onnx', folder)));
  const output = 'present.0.key'; // the whole network runs whatever is fetched; this output is small
  const model = {
    async run(inputs) {
      const feeds = Object.entries(inputs).map(([name, { dtype, data, shape }]) => [
        name,
        new Tensor(dtype, data, shape),
      ]);
      const { [output]: result } = await session.run(Object.fromEntries(feeds), [output]);
      return { [output]: { dtype: 'float32', shape: result.dims, data: result.data } };
    },
  };
  return new AsyncGRPCComputeServer({ computeFn: new AsyncModelComputeFunction({ model }), port: 0 });
}
