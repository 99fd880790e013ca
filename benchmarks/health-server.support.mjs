// The two servers of the health benchmark: `managed`, and its peer `event-loop`, which is what one writes oneself.
import { AsyncGRPCComputeServer, AsyncModelComputeFunction } from '@splitlearn/comm';
import { ManagedServer } from '@splitlearn/manager';
import { works } from './health-works.support.mjs';

const [kind, work] = process.argv.slice(2);
const { file, output } = works[work];
const server = kind === 'managed' ? new ManagedServer(file, { port: 0 }) : await eventLoop();
process.send(await server.start());
process.once('disconnect', async () => {
  await server.stop({ graceMs: 0 });
  process.exit();
});

async function eventLoop() {
  const { InferenceSession, Tensor } = await import('onnxruntime-node');
  const session = await InferenceSession.create(file);
  const model = {
    async run(inputs) {
      const feeds = Object.entries(inputs).map(([name, { dtype, data, shape }]) => [
        name,
        new Tensor(dtype, data, shape),
      ]);
      const { [output]: result } = await session.run(Object.fromEntries(feeds), [output]);
      return { [output]: { dtype: result.type, shape: result.dims, data: result.data } };
    },
  };
  return new AsyncGRPCComputeServer({ computeFn: new AsyncModelComputeFunction({ model }), port: 0 });
}
