// What one writes to run an ONNX file in a WorkerExecutor: nothing is checked.
import { markMovable } from '@splitlearn/comm';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { SESSION_OPTIONS } from '../session-options.mjs';

export default async function load(file) {
  const session = await InferenceSession.create(file, SESSION_OPTIONS);
  return {
    async run({ x: { dtype, data, shape } }) {
      const { y } = await session.run({ x: new Tensor(dtype, data, shape) });
      return markMovable({ y: { dtype: y.type, data: y.data, shape: y.dims } });
    },
    dispose: () => session.release(),
  };
}
