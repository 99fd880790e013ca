import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import {
  assertTensor,
  type DType,
  type Model,
  type ModelCall,
  type Tensor,
  type Tensors,
  tensor,
} from '@splitlearn/comm/model';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import { loadOnnxModel } from './onnx.js';
import { listTensors } from './onnx-checks.js';
import { loadError } from './onnx-errors.js';

const fixtures = fileURLToPath(new URL('../../test/fixtures/onnx/', import.meta.url));
const tinyGpt2 = fileURLToPath(new URL('../../models/tiny-gpt2/', import.meta.url));
const sileroVad = createRequire(import.meta.url)
  .resolve('@ricky0123/vad-web/package.json')
  .replace('package.json', 'dist/');

const loaded: Model[] = [];
afterEach(async () => {
  for (const model of loaded.splice(0)) await model.dispose?.();
});

function options(file: string, threads = 1) {
  return { modelId: 'm', folder: fixtures, file: file.startsWith('/') ? file : `${fixtures}${file}.onnx`, threads };
}

/** Loads a fixture by its name, or a file by its absolute path, until the test ends. */
async function load(file: string, threads?: number): Promise<Model> {
  const model = await loadOnnxModel(options(file, threads));
  loaded.push(model);
  return model;
}

function call(outputs: readonly string[] = [], signal = new AbortController().signal): ModelCall {
  return { parameters: {}, outputs, signal, requestId: 'r' };
}

async function run(model: Model, inputs: Tensors, outputs?: readonly string[]): Promise<Record<string, Tensor>> {
  const results = await model.run(inputs, call(outputs));
  for (const [name, result] of Object.entries(results)) assertTensor(result, name);
  return results;
}

async function failure(work: Promise<unknown> | Tensors): Promise<ManagerError> {
  const error = await Promise.resolve(work).then(
    () => expect.fail('nothing was thrown'),
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(ManagerError);
  expect(error.message).not.toContain('\n');
  return error;
}

function floats(result: Tensor | undefined): Float32Array {
  expect(result?.dtype).toBe('float32');
  return result?.data as Float32Array;
}

const elements = {
  float32: Float32Array,
  float64: Float64Array,
  float16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int16: Int16Array,
  uint16: Uint16Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  bool: Uint8Array,
};
const numericDTypes = Object.keys(elements) as (keyof typeof elements)[];

function bytesOf({ data }: Tensor): Uint8Array {
  const { buffer, byteOffset, byteLength } = data as Uint8Array;
  return new Uint8Array(buffer, byteOffset, byteLength);
}

describe('dtypes', () => {
  const shapes = fc.array(fc.nat({ max: 5 }), { maxLength: 3 });

  it.each(numericDTypes)('%s comes back bit by bit, whatever its bits and its shape', async (dtype) => {
    const model = await load(`identity-${dtype}`);
    const size = elements[dtype].BYTES_PER_ELEMENT;
    const tensors = shapes.chain((shape) => {
      const length = shape.reduce((product, dimension) => product * dimension, size);
      const bytes = fc.uint8Array({ minLength: length, maxLength: length, max: dtype === 'bool' ? 1 : 255 });
      return bytes.map((data) => ({ dtype, shape, data: new elements[dtype](data.slice().buffer) }) as Tensor);
    });
    await fc.assert(
      fc.asyncProperty(tensors, async (x) => {
        const { y } = await run(model, { x });
        expect({ dtype: y?.dtype, shape: y?.shape }).toEqual({ dtype, shape: x.shape });
        expect(bytesOf(y as Tensor)).toEqual(bytesOf(x));
      }),
    );
  });

  it('string comes back as it was, whatever its characters and its shape', async () => {
    const model = await load('identity-string');
    // All of Unicode but NUL and lone surrogates. (fast-check's own unit 'binary' takes a second to set up.)
    const codePoint = fc.oneof(fc.integer({ min: 1, max: 0xd7ff }), fc.integer({ min: 0xe000, max: 0x10ffff }));
    const text = fc.string({ unit: codePoint.map((code) => String.fromCodePoint(code)) });
    const tensors = shapes.chain((shape) => {
      const length = shape.reduce((product, dimension) => product * dimension, 1);
      return fc.array(text, { minLength: length, maxLength: length }).map((data) => tensor(data, shape, 'string'));
    });
    await fc.assert(
      fc.asyncProperty(tensors, async (x) => {
        expect((await run(model, { x })).y).toEqual(x);
      }),
    );
  });

  it.each([
    ['float32', new Uint32Array([0x8000_0000, 0x7fc0_0001, 0xffc1_2345, 0x7f80_0001, 0x0000_0001])],
    ['float64', new BigUint64Array([0x8000n << 48n, 0x7ff8_0000_0000_0001n, 0xfff0_dead_beef_0001n, 1n])],
    ['float16', new Uint16Array([0x8000, 0x7e01, 0xfdff, 0x7c01, 0x0001])],
  ] as const)('%s keeps -0, the payloads of NaNs and subnormal numbers', async (dtype, bits) => {
    const data = new elements[dtype](bits.buffer.slice(0));
    const x = { dtype, shape: [data.length], data } as Tensor;
    const { y } = await run(await load(`identity-${dtype}`), { x });
    expect(bytesOf(y as Tensor)).toEqual(bytesOf(x));
  });

  it('takes data that begins in the middle of a buffer, and data in shared memory', async () => {
    const model = await load('identity-int32');
    const middle = new Int32Array([1, 2, 3, 4]).subarray(1, 3);
    expect((await run(model, { x: tensor(middle) })).y?.data).toEqual(new Int32Array([2, 3]));
    const shared = new Int32Array(new SharedArrayBuffer(8)).fill(7);
    expect((await run(model, { x: tensor(shared) })).y?.data).toEqual(new Int32Array([7, 7]));
  });

  it('hands strings to an operator as UTF-8', async () => {
    const { id } = await run(await load('label-encoder'), { word: tensor(['dog', 'grüße', 'emu']) });
    expect(id).toEqual(tensor(new BigInt64Array([2n, 3n, -1n])));
  });

  it('does not cut a string at a NUL character, but refuses it', async () => {
    const error = await failure((await load('identity-string')).run({ x: tensor(['a', 'b\0c']) }, call()));
    expect(error.code).toBe('INVALID_INPUT');
    expect(error.message).toBe(
      "input 'x' of model 'm' has a NUL character in the string at index 1, which would cut it off",
    );
  });
});

describe('shapes', () => {
  it('takes and gives scalars', async () => {
    const { sum } = await run(await load('add-scalars'), { left: tensor(1), right: tensor(2) });
    expect(sum).toEqual(tensor(3));
  });

  it('takes any number of rows, none as well', async () => {
    const model = await load('add-rows');
    for (const rows of [0, 1, 5]) {
      const left = tensor(new Float32Array(rows * 3).fill(2), [rows, 3]);
      const right = tensor(new Float32Array(rows * 3).fill(3), [rows, 3]);
      expect((await run(model, { left, right })).sum).toEqual(tensor(new Float32Array(rows * 3).fill(5), [rows, 3]));
    }
  });

  it.each([[[]], [[0]], [[2, 0, 3]], [[2, 3]]])('gives a tensor of shape %j', async (shape) => {
    const { filled } = await run(await load('fill'), { shape: tensor(BigInt64Array.from(shape, BigInt)) });
    expect(filled?.shape).toEqual(shape);
  });

  it('leaves inputs that broadcast along dimensions of one name to ONNX Runtime', async () => {
    const { sum } = await run(await load('add-rows'), {
      left: tensor([[1, 2, 3]]),
      right: tensor([
        [1, 1, 1],
        [2, 2, 2],
      ]),
    });
    expect(sum).toEqual(
      tensor([
        [2, 3, 4],
        [3, 4, 5],
      ]),
    );
  });
});

describe('inputs', () => {
  const rows = tensor([[1, 2, 3]]);

  it.each<[string, Record<string, unknown>, string]>([
    [
      'a missing input',
      { left: rows },
      "model 'm' was not given 'right'; it takes 'left' float32 [rows, 3], 'right' float32 [rows, 3]",
    ],
    [
      'an input that the model does not have',
      { left: rows, right: rows, middle: rows },
      "model 'm' has no input 'middle'; it takes 'left' float32 [rows, 3], 'right' float32 [rows, 3]",
    ],
    [
      'another dtype',
      { left: tensor(new Float64Array(3), [1, 3], 'float64'), right: rows },
      "input 'left' of model 'm' has dtype float64, but must have float32",
    ],
    [
      'a dtype that ONNX Runtime has no tensors of',
      { left: rows, right: tensor([[1, 2, 3]], undefined, 'bfloat16') },
      "input 'right' of model 'm' has dtype bfloat16, but must have float32",
    ],
    [
      'another number of dimensions',
      { left: tensor([1, 2, 3]), right: rows },
      "input 'left' of model 'm' has shape [3], but must have [rows, 3]",
    ],
    [
      'another size of a fixed dimension',
      { left: rows, right: tensor([[1, 2, 3, 4]]) },
      "input 'right' of model 'm' has shape [1, 4], but must have [rows, 3]",
    ],
    [
      'a shape that its data does not have',
      { left: rows, right: { dtype: 'float32', shape: [2, 3], data: new Float32Array(5) } },
      "input 'right' of model 'm': tensor 'right' of shape",
    ],
    ['no tensor at all', { left: rows, right: [1, 2, 3] }, "input 'right' of model 'm': 'right' is no tensor"],
  ])('refuses %s', async (_, inputs, message) => {
    const error = await failure((await load('add-rows')).run(inputs as Tensors, call()));
    expect(error.code).toBe('INVALID_INPUT');
    expect(error.message).toContain(message);
  });

  it('says of an input of unknown rank that it takes any shape', async () => {
    const error = await failure((await load('identity-int8')).run({}, call()));
    expect(error.message).toBe("model 'm' was not given 'x'; it takes 'x' int8 (a scalar or any shape)");
  });

  it('does not demand an input that has a default, and does not pretend to take it', async () => {
    const model = await load('default-input');
    expect(model.info?.inputs?.map(({ name }) => name)).toEqual(['x']);
    expect((await run(model, { x: rows })).y).toEqual(tensor([[11, 22, 33]]));
    const error = await failure(model.run({ x: rows, bias: tensor([0, 0, 0]) }, call()));
    expect(error.message).toBe("model 'm' has no input 'bias'; it takes 'x' float32 [rows, 3]");
  });

  it('runs a model without inputs', async () => {
    const model = await load('no-input');
    expect((await run(model, {})).y).toEqual(tensor([10, 20, 30]));
    const error = await failure(model.run({ x: rows }, call()));
    expect(error.message).toBe("model 'm' has no input 'x'; it takes nothing");
  });

  it('lists a dozen inputs and counts the rest, so that the message fits into a header', () => {
    const many = Array.from({ length: 70 }, (_, index) => ({ name: `i${index}`, dtype: 'int8' as DType, shape: [1] }));
    expect(listTensors(many)).toMatch(/^'i0' int8 \[1\], .*'i11' int8 \[1\] and 58 more$/);
  });
});

describe('outputs', () => {
  const inputs = { left: tensor([[3, 3, 3]]), right: tensor([[1, 2, 3]]) };

  it('gives all of them by default', async () => {
    const results = await run(await load('add-rows'), inputs);
    expect(results).toEqual({ sum: tensor([[4, 5, 6]]), difference: tensor([[2, 1, 0]]) });
  });

  it('gives only those that are asked for', async () => {
    const model = await load('add-rows');
    expect(await run(model, inputs, ['difference'])).toEqual({ difference: tensor([[2, 1, 0]]) });
    expect(Object.keys(await run(model, inputs, ['sum', 'sum']))).toEqual(['sum']);
  });

  it('refuses a name that is no output', async () => {
    const error = await failure((await load('add-rows')).run(inputs, call(['sum', 'product', 'quotient'])));
    expect(error.code).toBe('INVALID_INPUT');
    expect(error.message).toBe(
      "model 'm' has no output 'product', 'quotient'; it gives 'sum' float32 [rows, 3], 'difference' float32 [rows, 3]",
    );
  });

  it("leaves out a classifier's maps, which are no tensors", async () => {
    const model = await load('classifier');
    expect(model.info?.outputs).toEqual([{ name: 'label', dtype: 'int64', shape: ['rows'] }]);
    expect(model.info?.attributes?.outputsLeftOut).toBe("'probabilities' is a sequence, a map or an optional value");
    const scores = tensor([
      [1, 2],
      [3, 1],
    ]);
    expect(await run(model, { scores })).toEqual({ label: tensor(new BigInt64Array([1n, 0n])) });
    const error = await failure(model.run({ scores }, call(['probabilities'])));
    expect(error.code).toBe('INVALID_INPUT');
    expect(error.message).toBe(
      "model 'm' cannot hand out 'probabilities', because it is a sequence, a map or an optional value; " +
        "it gives 'label' int64 [rows]",
    );
  });

  it('leaves out an output of a type that no tensor has', async () => {
    const model = await load('int4-output');
    expect(await run(model, { x: tensor([-1, 2]) })).toEqual({ y: tensor([1, 2]) });
    expect(model.info?.attributes?.outputsLeftOut).toBe("'small' is of element type int4");
  });
});

describe('memory of the outputs', () => {
  it('belongs to each output alone, and no later run writes to it', async () => {
    const model = await load('aliases');
    const x = tensor(new Float32Array([1, 2, 3, 4]), [2, 2]);
    const results = await run(model, { x });
    const buffers = Object.values(results).map(({ data }) => (data as Float32Array).buffer);
    expect(new Set([x.data.buffer, ...buffers]).size).toBe(4);
    for (const buffer of buffers) expect(buffer.byteLength).toBe(16);

    await run(model, { x: tensor(new Float32Array([9, 9, 9, 9]), [2, 2]) });
    expect(Object.values(results).map(({ data }) => data)).toEqual([x.data, x.data, x.data]);
    floats(results.first).fill(7);
    expect([x.data, results.second?.data, results.third?.data]).toEqual([x.data, x.data, x.data]);
    expect(floats(x)[0]).toBe(1);
  });

  it('can be moved to another thread', async () => {
    const outputs: Record<string, Tensor | undefined> = {};
    for (const dtype of numericDTypes) {
      const data = new elements[dtype](1000);
      const x = { dtype, shape: [1000], data } as Tensor;
      outputs[dtype] = (await run(await load(`identity-${dtype}`), { x })).y;
    }
    const fill = await load('fill');
    outputs.empty = (await run(fill, { shape: tensor(new BigInt64Array([0n, 3n])) })).filled;
    outputs.scalar = (await run(fill, { shape: tensor(new BigInt64Array()) })).filled;
    outputs.text = (await run(await load('identity-string'), { x: tensor(['a', 'ß']) })).y;
    const expected = structuredClone(outputs);
    const arrays = Object.values(outputs).flatMap((output) =>
      output?.dtype === 'string' ? [] : [output?.data as Uint8Array],
    );

    // Sends what it gets back in the same way.
    const thread = new Worker(
      `const { parentPort } = require('node:worker_threads');
       parentPort.once('message', (outputs) => {
         const arrays = Object.values(outputs).map(({ data }) => data).filter(ArrayBuffer.isView);
         parentPort.postMessage(outputs, arrays.map(({ buffer }) => buffer));
       });`,
      { eval: true },
    );
    const answer = new Promise((resolve, reject) => thread.once('message', resolve).once('error', reject));
    thread.postMessage(
      outputs,
      arrays.map(({ buffer }) => buffer as ArrayBuffer),
    );
    expect(arrays.map(({ byteLength }) => byteLength)).toEqual(arrays.map(() => 0));
    expect(await answer).toEqual(expected);
    await thread.terminate();
  });
});

describe('runs', () => {
  it('does not begin one that was aborted', async () => {
    const model = await load('add-rows');
    const reason = new Error('nobody waits');
    // The inputs are wrong as well: the abort comes first.
    const work = model.run({}, call([], AbortSignal.abort(reason)));
    await expect(work).rejects.toBe(reason);
  });

  it('explains what ONNX Runtime refuses', async () => {
    const model = await load('add-rows');
    const two = tensor([
      [1, 1, 1],
      [2, 2, 2],
    ]);
    const three = tensor([
      [1, 1, 1],
      [2, 2, 2],
      [3, 3, 3],
    ]);
    const error = await failure(model.run({ left: two, right: three }, call(['sum'])));
    expect(error.code).toBe('INFERENCE_FAILED');
    expect(error.message).toMatch(
      /^model 'm' failed: Non-zero status code returned while running (Add|Sub) node.* 2 by 3\./,
    );
    expect(error.message).toContain("It was given 'left' float32 [2, 3], 'right' float32 [3, 3]; check that");
    expect(error.cause).toBeInstanceOf(Error);
    expect((await run(model, { left: two, right: two }, ['sum'])).sum).toEqual(
      tensor([
        [2, 2, 2],
        [4, 4, 4],
      ]),
    );
  });

  it('tells a lack of memory apart, and goes on after it', async () => {
    const model = await load('fill');
    const pair = { shape: tensor(new BigInt64Array([2n])) };
    expect((await run(model, pair)).filled).toEqual(tensor([0, 0]));
    // More than any address space holds, so that no system's overcommit grants it.
    const error = await failure(model.run({ shape: tensor(new BigInt64Array([10n ** 16n])) }, call()));
    expect(error.code).toBe('INSUFFICIENT_MEMORY');
    expect(error.message).toMatch(
      /^model 'm' ran out of memory: .* buffer of size 40000000000000000\. It was given 'shape'/,
    );
    expect((await run(model, pair)).filled).toEqual(tensor([0, 0]));
  });

  it('ends with the model', async () => {
    const model = await loadOnnxModel(options('add-scalars'));
    await model.dispose?.();
    const error = await failure(model.run({ left: tensor(1), right: tensor(2) }, call()));
    expect(error.message).toContain('Session already disposed');
  });
});

describe('loading', () => {
  it('finds external data beside the file', async () => {
    const x = tensor(new Float32Array(1024).fill(0.5));
    const { y } = await run(await load('external-data'), { x });
    expect(floats(y)).toEqual(Float32Array.from({ length: 1024 }, (_, index) => index + 0.5));
  });

  it('describes the model', async () => {
    expect((await load('fill')).info).toEqual({
      inputs: [{ name: 'shape', dtype: 'int64', shape: ['?'] }],
      outputs: [{ name: 'filled', dtype: 'float32', shape: [] }],
      attributes: { runtime: expect.stringMatching(/^onnxruntime \d+\.\d+\.\d+$/) },
    });
  });

  it.each([
    ['empty', '(0 bytes)', 'The file is no ONNX model or only a part of one'],
    ['truncated', 'Protobuf parsing failed', 'The file is no ONNX model or only a part of one'],
    ['git-lfs-pointer', '(134 bytes)', '`git lfs pull`'],
    ['external-data-missing', 'nowhere.data', 'all of them must lie in its folder'],
    ['external-data-above', 'escapes model directory', 'which is never done'],
    ['external-data-absolute', 'Absolute path not allowed', 'which is never done'],
    ['future-opset', 'Opset 999', 'export it for an older opset'],
    ['unknown-operator', 'Frobnicate', 'without custom operators'],
    ['custom-operator', 'com.example:Frobnicate', 'without custom operators'],
    ['identity-bfloat16', 'Unsupported data type: 16', '16 is bfloat16'],
  ])('explains why %s cannot be loaded', async (name, problem, advice) => {
    const error = await failure(loadOnnxModel(options(name)));
    expect(error.code).toBe('MODEL_LOAD_FAILED');
    expect(error.message).toContain(`model 'm' could not be loaded from ${fixtures}${name}.onnx (`);
    expect(error.message).toContain(problem);
    expect(error.message).toContain(advice);
    expect(error.cause).toBeInstanceOf(Error);
  });

  it('refuses a model whose inputs are not all tensors', async () => {
    const error = await failure(loadOnnxModel(options('sequence-input')));
    expect(error.code).toBe('MODEL_LOAD_FAILED');
    expect(error.message).toContain("its input 'pieces' is a sequence, a map or an optional value");
  });

  it('says when there is no such file, and when it is a folder', async () => {
    const missing = await failure(loadOnnxModel(options('no-such-file')));
    expect(missing.code).toBe('SOURCE_NOT_FOUND');
    expect(missing.message).toContain("the file of model 'm' cannot be found: ENOENT");
    const folder = await failure(loadOnnxModel(options(fixtures)));
    expect(folder.code).toBe('MODEL_LOAD_FAILED');
    expect(folder.message).toContain('is a directory');
  });

  it.each([
    'OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library',
    'no available backend found. ERR: [cuda:1] backend not found.',
    'Failed to get a WebGPU adapter: No supported adapters',
    'CUDA failure 101: invalid device ordinal ; GPU=1',
  ])('tells a device that is not there apart: %s', async (problem) => {
    const error = await loadError({ ...options('fill'), device: 'cuda:1' }, new Error(problem));
    expect(error.code).toBe('DEVICE_UNAVAILABLE');
    for (const part of ["model 'm'", "'cuda:1'", problem, "'cpu'"]) expect(error.message).toContain(part);
    expect((await loadError(options('fill'), new Error(problem))).code).toBe('MODEL_LOAD_FAILED');
    const other = await loadError({ ...options('fill'), device: 'cuda:1' }, new Error('Protobuf parsing failed.'));
    expect(other.code).toBe('MODEL_LOAD_FAILED');
  });

  it('tells a lack of memory, and a runtime that does not load, apart', async () => {
    const memory = await loadError(options('fill'), new Error('Exception during initialization: std::bad_alloc'));
    expect(memory.code).toBe('INSUFFICIENT_MEMORY');
    const binding = new Error("Cannot find module '../bin/napi-v6/linux/riscv64/onnxruntime_binding.node'");
    expect((await loadError(options('fill'), binding)).message).toContain('onnxruntime-node supports');
  });
});

interface GoldenCase {
  readonly input_ids: number[];
  readonly greedy_ids: number[];
  readonly last_logits_first16: number[];
  readonly last_logits_l2: number;
}

describe('tiny-gpt2', () => {
  const golden: { cases: GoldenCase[]; tolerance: number } = JSON.parse(readFileSync(`${tinyGpt2}golden.json`, 'utf8'));
  const layers = [0, 1, 2, 3];

  function ids(values: readonly number[]): Tensor<'int64'> {
    return tensor(BigInt64Array.from(values, BigInt), [1, values.length]);
  }

  /** The first call's cache: a past of length 0. */
  function emptyCache(): Record<string, Tensor> {
    const none = tensor(new Float32Array(), [1, 4, 0, 32]);
    return Object.fromEntries(layers.flatMap((layer) => ['key', 'value'].map((part) => [`${layer}.${part}`, none])));
  }

  /** One pass through a model or through parts of it: the logits of the last token, and the cache for the next pass. */
  async function pass(parts: readonly Model[], tokens: readonly number[], past: number, cache: Record<string, Tensor>) {
    const positions = tokens.map((_, index) => past + index);
    let carried: Record<string, Tensor> = {
      input_ids: ids(tokens),
      position_ids: ids(positions),
      attention_mask: ids([...Array(past).fill(1), ...tokens.map(() => 1)]),
    };
    const next = { ...cache };
    for (const part of parts) {
      const wanted = part.info?.inputs?.map(({ name }) => name) ?? [];
      for (const [slot, state] of Object.entries(next)) carried[`past_key_values.${slot}`] = state;
      const inputs = Object.fromEntries(wanted.map((name) => [name, carried[name] as Tensor]));
      const outputs = await run(part, inputs);
      for (const [name, output] of Object.entries(outputs)) {
        if (name.startsWith('present.')) next[name.slice('present.'.length)] = output;
      }
      carried = { ...carried, ...outputs, hidden_states_in: outputs.hidden_states_out as Tensor };
    }
    return { logits: floats(carried.logits).slice(-1024), cache: next };
  }

  async function greedy(parts: readonly Model[], prompt: readonly number[], count: number) {
    const chosen: number[] = [];
    let step = await pass(parts, prompt, 0, emptyCache());
    const first = step.logits;
    for (let past = prompt.length; ; past += 1) {
      const best = step.logits.indexOf(Math.max(...step.logits));
      chosen.push(best);
      if (chosen.length === count) return { first, chosen };
      step = await pass(parts, [best], past, step.cache);
    }
  }

  function expectGolden({ first, chosen }: Awaited<ReturnType<typeof greedy>>, expected: GoldenCase) {
    const worst = Math.max(
      ...expected.last_logits_first16.map((logit, index) => Math.abs(logit - (first[index] as number))),
    );
    expect(worst).toBeLessThan(golden.tolerance);
    expect(Math.abs(Math.hypot(...first) - expected.last_logits_l2)).toBeLessThan(golden.tolerance);
    expect(chosen).toEqual(expected.greedy_ids);
  }

  it.each(golden.cases)('computes what PyTorch computed: case %#', async (expected) => {
    const whole = [await load(`${tinyGpt2}onnx/model.onnx`)];
    const split = await Promise.all(['bottom', 'trunk', 'top'].map((part) => load(`${tinyGpt2}onnx/${part}.onnx`)));
    const one = await greedy(whole, expected.input_ids, expected.greedy_ids.length);
    expectGolden(one, expected);
    const three = await greedy(split, expected.input_ids, expected.greedy_ids.length);
    expect(three).toEqual(one);
  });

  it('computes the same with two threads', async () => {
    const [expected] = golden.cases as [GoldenCase];
    const whole = [await load(`${tinyGpt2}onnx/model.onnx`, 2)];
    expectGolden(await greedy(whole, expected.input_ids, expected.greedy_ids.length), expected);
  });

  it('explains a position beyond its context', async () => {
    const whole = [await load(`${tinyGpt2}onnx/model.onnx`)];
    const error = await failure(
      pass(whole, [1], 0, emptyCache()).then(() => pass(whole, Array(257).fill(1), 0, emptyCache())),
    );
    expect(error.code).toBe('INFERENCE_FAILED');
    expect(error.message).toContain('indices element out of data bounds, idx=256');
    expect(error.message).toContain('token ids and positions, are within their range');
  });
});

describe('Silero VAD', () => {
  const generations = [
    { file: 'silero_vad_legacy', state: { h: [2, 1, 64], c: [2, 1, 64] }, next: { h: 'hn', c: 'cn' } },
    { file: 'silero_vad_v5', state: { state: [2, 1, 128] }, next: { state: 'stateN' } },
    { file: 'silero_vad_v6', state: { state: [2, 1, 128] }, next: { state: 'stateN' } },
  ];
  const sampleRate = tensor(new BigInt64Array([16000n]), []);

  /** A hum with overtones, about as high as a voice. */
  function chunk(index: number): Tensor {
    const samples = Float32Array.from({ length: 512 }, (_, sample) => {
      const time = (index * 512 + sample) / 16000;
      return 0.2 * Math.sin(2 * Math.PI * 140 * time) + 0.1 * Math.sin(2 * Math.PI * 700 * time);
    });
    return tensor(samples, [1, 512]);
  }

  it.each(generations)('$file carries its state from chunk to chunk', async ({ file, state, next }) => {
    const model = await load(`${sileroVad}${file}.onnx`);
    const fresh = Object.fromEntries(
      Object.entries(state).map(([name, shape]) => [
        name,
        tensor(new Float32Array(shape.reduce((a, b) => a * b)), shape),
      ]),
    );
    async function hear(input: Tensor, before: Record<string, Tensor>) {
      const outputs = await run(model, { input, sr: sampleRate, ...before });
      const after = Object.entries(next).map(([name, output]) => [name, outputs[output] as Tensor]);
      expect(outputs.output?.shape).toEqual([1, 1]);
      return { probability: floats(outputs.output)[0] as number, state: Object.fromEntries(after) };
    }
    async function hearAll() {
      const probabilities: number[] = [];
      let carried = fresh;
      for (let index = 0; index < 8; index += 1) {
        const heard = await hear(chunk(index), carried);
        probabilities.push(heard.probability);
        carried = heard.state;
      }
      return probabilities;
    }

    const once = await hearAll();
    for (const probability of once) expect(probability).toBeGreaterThan(0);
    expect(await hearAll()).toEqual(once);
    expect((await hear(chunk(7), fresh)).probability).not.toBe(once[7]);
    const silence = await hear(tensor(new Float32Array(512), [1, 512]), fresh);
    expect(silence.probability).toBeLessThan(0.1);
  });

  it('says what it takes', async () => {
    const error = await failure((await load(`${sileroVad}silero_vad_v5.onnx`)).run({ input: chunk(0) }, call()));
    expect(error.message).toBe(
      "model 'm' was not given 'state', 'sr'; it takes 'input' float32 [?, ?], 'state' float32 [2, ?, 128], " +
        "'sr' int64 (a scalar or any shape)",
    );
  });
});
