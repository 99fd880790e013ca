// Writes the ONNX files of these benchmarks: the same bytes every time. The fields are those of onnx.proto
// (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto); protobuf needs so little here that it is written by hand.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { randomNumbers } from './random.mjs';

/** The large models take x of [1, WIDTH] and give y of [1, OUTPUTS]: Relu(x · first) · second. `first` has 58.7 MB. */
export const WIDTH = 1_024;
const HIDDEN = 14_336;
const OUTPUTS = 16;

/** Of the model with a batch dimension. Its weights have 59.6 MB, so a run of one row takes some 2 ms. */
const BATCH_HIDDEN = HIDDEN;

const IR_VERSION = 8;
const OPSET = 13;
const FLOAT = 1; // TensorProto.DataType

/** @returns the path of a model that gives back what it is given, a float32 tensor of one axis. */
export function writeIdentity(folder) {
  return writeModel(folder, 'identity', {
    nodes: [{ type: 'Identity', inputs: ['x'], outputs: ['y'] }],
    input: ['n'],
    output: ['n'],
  });
}

/** @returns the path of a large model; each name has weights of its own. */
export function writeLargeModel(folder, name) {
  return writeLayers(folder, name, 1, HIDDEN);
}

/** @returns the path of a model that takes x of [batch, WIDTH] and gives y of [batch, OUTPUTS]. */
export function writeBatchModel(folder) {
  return writeLayers(folder, 'batch', 'batch', BATCH_HIDDEN);
}

function writeLayers(folder, name, rows, hidden) {
  const random = randomNumbers(name);
  return writeModel(folder, name, {
    nodes: [
      { type: 'MatMul', inputs: ['x', 'first'], outputs: ['hidden'] },
      { type: 'Relu', inputs: ['hidden'], outputs: ['positive'] },
      { type: 'MatMul', inputs: ['positive', 'second'], outputs: ['y'] },
    ],
    weights: [
      { name: 'first', shape: [WIDTH, hidden], data: weights(WIDTH * hidden, random) },
      { name: 'second', shape: [hidden, OUTPUTS], data: weights(hidden * OUTPUTS, random) },
    ],
    input: [rows, WIDTH],
    output: [rows, OUTPUTS],
  });
}

function writeModel(folder, name, { nodes, weights: tensors = [], input, output }) {
  const graph = [
    ...nodes.map(({ type, inputs, outputs }) => [
      1,
      [...inputs.map((from) => [1, from]), ...outputs.map((to) => [2, to]), [4, type]],
    ]),
    [2, name],
    ...tensors.map((tensor) => [
      5,
      [...tensor.shape.map((size) => [1, size]), [2, FLOAT], [8, tensor.name], [9, Buffer.from(tensor.data.buffer)]],
    ]),
    [11, value('x', input)],
    [12, value('y', output)],
  ];
  const model = [
    [1, IR_VERSION],
    [7, graph],
    [8, [[2, OPSET]]],
  ];
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `${name}.onnx`);
  writeFileSync(file, encode(model));
  return file;
}

/** A ValueInfoProto: a float32 tensor whose axes have sizes, or names. */
function value(name, shape) {
  const axes = shape.map((size) => [1, [typeof size === 'number' ? [1, size] : [2, size]]]);
  const tensorType = [
    [1, FLOAT],
    [2, axes],
  ];
  return [
    [1, name],
    [2, [[1, tensorType]]],
  ];
}

function weights(count, random) {
  return Float32Array.from({ length: count }, () => (random() - 0.5) / 16);
}

/** A message: a list of [field, value], where a value is a number, a string, bytes or another message. */
function encode(fields) {
  const parts = fields.flatMap(([field, content]) => {
    if (typeof content === 'number') return [varint(field * 8), varint(content)];
    const bytes = Array.isArray(content) ? encode(content) : Buffer.from(content);
    return [varint(field * 8 + 2), varint(bytes.length), bytes];
  });
  return Buffer.concat(parts);
}

function varint(number) {
  const bytes = [];
  for (let left = number; ; left = Math.floor(left / 128)) {
    if (left < 128) return Buffer.from([...bytes, left]);
    bytes.push((left % 128) + 128);
  }
}
