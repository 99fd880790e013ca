// Requests that are computed together, in real models behind a real server.
import { GRPCComputeClient, type Tensor, type Tensors, tensor } from '@splitlearn/comm';
import type { ModelConfig } from '@splitlearn/manager';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commFailure, managerFailure, onnxFile, type Served, serve, watchProcesses } from './support/managed.js';

watchProcesses();

const REQUESTS = 32;
const batching = { maxBatchSize: 16 };
const layers: ModelConfig = { modelId: 'layers', source: onnxFile('onnx/layers'), batching };

let served: Served;
let client: GRPCComputeClient;
beforeAll(async () => {
  served = await serve([
    layers,
    { ...layers, modelId: 'in a thread', isolation: 'thread' },
    { ...layers, modelId: 'patient', batching: { maxBatchSize: REQUESTS, maxQueueDelayMs: 10_000 } },
    { modelId: 'alone', source: onnxFile('onnx/layers') },
    { modelId: 'look-up', source: onnxFile('onnx/look-up'), batching: { maxBatchSize: 8, maxQueueDelayMs: 10_000 } },
  ]);
  client = new GRPCComputeClient(`127.0.0.1:${served.port}`);
});
afterAll(async () => {
  await client.close();
  await served.close();
});

/** Rows for the layers, others for each seed. */
function rows(seed: number, count = 1): Tensors {
  const data = Float32Array.from({ length: 16 * count }, (_, index) => Math.sin(seed * 1_000 + index));
  return { x: tensor(data, [count, 16]) };
}

function bits({ y }: Tensors): string {
  const { data } = y as Tensor<'float32'>;
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex');
}

describe.each(['layers', 'in a thread', 'patient'])('%s: requests in flight at once', (model) => {
  it('are computed together, and each is given what it would be given alone, bit for bit', async () => {
    const inputs = Array.from({ length: REQUESTS }, (_, index) => rows(index));
    const alone: Tensors[] = [];
    for (const each of inputs) alone.push(await client.compute(each, { model: 'alone' }));
    const answers = await Promise.all(inputs.map((each) => client.computeWithTiming(each, { model })));
    expect(answers.map(({ outputs }) => bits(outputs))).toEqual(alone.map(bits));
    const sizes = answers.map(({ timing }) => timing.batchSize ?? 0);
    expect(Math.max(...sizes)).toBeGreaterThan(1);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(REQUESTS);
    if (model === 'patient') expect(new Set(sizes)).toEqual(new Set([REQUESTS]));
    for (const { timing } of answers) expect(timing.queueMs + timing.computeMs).toBeLessThanOrEqual(timing.serverMs);
  });
});

it('a request that has several rows counts as so many', async () => {
  const [one, other] = await Promise.all([
    client.computeWithTiming(rows(1, 20), { model: 'patient' }),
    client.computeWithTiming(rows(2, 12), { model: 'patient' }),
  ]);
  expect([one.timing.batchSize, other.timing.batchSize]).toEqual([32, 32]);
  expect(one.outputs.y?.shape).toEqual([20, 8]);
  expect(bits(other.outputs)).toBe(bits(await client.compute(rows(2, 12), { model: 'alone' })));
});

it('a single client waits for nobody', async () => {
  for (let seed = 0; seed < 5; seed++) {
    const { timing } = await client.computeWithTiming(rows(seed), { model: 'layers' });
    expect(timing.batchSize).toBe(1);
  }
});

it('requests without a batch say nothing of its size', async () => {
  const { timing } = await client.computeWithTiming(rows(1), { model: 'alone' });
  expect(timing).not.toHaveProperty('batchSize');
});

describe('a table', () => {
  const ids = (...numbers: number[]): Tensors => ({
    ids: tensor(BigInt64Array.from(numbers, BigInt), [1, numbers.length]),
  });
  const lookUp = (inputs: Tensors) => client.computeWithTiming(inputs, { model: 'look-up' });

  it('fails whoever asks for what is not in it, and nobody else', async () => {
    const wrong = commFailure(lookUp(ids(99)));
    const right = await Promise.all([0, 1, 2, 3, 4, 5, 6].map((id) => lookUp(ids(id))));
    expect(right.map(({ outputs }) => (outputs.rows as Tensor<'float32'>).data[0])).toEqual([0, 4, 8, 12, 16, 20, 24]);
    expect(await wrong).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'INFERENCE_FAILED' });
  });

  it('computes only requests of one length together, and does not let them wait for each other', async () => {
    const answers = await Promise.all([
      ...Array.from({ length: 8 }, (_, id) => lookUp(ids(id, id))),
      ...Array.from({ length: 8 }, (_, id) => lookUp(ids(id, id, id))),
    ]);
    expect(answers.map(({ outputs }) => outputs.rows?.shape[1])).toEqual([...Array(8).fill(2), ...Array(8).fill(3)]);
    expect(new Set(answers.map(({ timing }) => timing.batchSize))).toEqual(new Set([8]));
  });

  it('refuses what is no request of it at once, without a word to the others', async () => {
    const wrong = commFailure(lookUp({ ids: tensor([1.5], [1, 1]) }));
    const right = Array.from({ length: 8 }, (_, id) => lookUp(ids(id)));
    expect((await wrong).reason).toBe('INVALID_INPUT');
    for (const { timing } of await Promise.all(right)) expect(timing.batchSize).toBe(8);
  });
});

describe('batching is refused when the model is loaded', () => {
  it.each<[string, ModelConfig, RegExp]>([
    [
      'without a batch dimension',
      { source: onnxFile('onnx/add-scalars'), batching },
      /its input 'left' of shape \[\] has no open/,
    ],
    [
      'in a thread',
      { source: onnxFile('onnx/add-scalars'), batching, isolation: 'thread' },
      /its input 'left' of shape/,
    ],
    [
      'of text',
      { source: 'tiny-gpt2', batching },
      /cannot have batching, because the answers of the engine 'transformers'/,
    ],
    ['with a wrong configuration', { ...layers, batching: { maxBatchSize: 0 } }, /batching.maxBatchSize/],
  ])('%s', async (_, config, message) => {
    const error = await managerFailure(served.server.loadModel({ ...config, modelId: 'refused' }));
    expect(error.code).toBe('INVALID_CONFIG');
    expect(error.message).toMatch(message);
  });
});
