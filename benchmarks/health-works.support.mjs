// What the model of the health benchmark computes. Both runs are real ONNX models.
import { fileURLToPath } from 'node:url';
import { tensor } from '@splitlearn/comm';
import { tinyGpt2Inputs } from './support.mjs';

const manager = new URL('../packages/splitlearn-manager/', import.meta.url);

export const works = {
  'one core, 8-byte answer': {
    file: fileURLToPath(new URL('test/fixtures/loop.onnx', manager)),
    inputs: { n: tensor(100_000n) },
    output: 'count',
  },
  'all cores, 1 MB answer': {
    file: fileURLToPath(new URL('models/tiny-gpt2/onnx/model.onnx', manager)),
    inputs: tinyGpt2Inputs(8, 256),
    output: 'present.0.key', // the whole network runs whatever is fetched
  },
};
