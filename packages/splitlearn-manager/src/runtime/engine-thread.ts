import type { Model } from '@splitlearn/comm';
import type { Engine } from '../engines/engine.js';
import { loadOnnxModel } from '../engines/onnx.js';
import { loadTransformersModel } from '../engines/transformers.js';
import type { EngineName, RuntimeOptions } from './model-runtime.js';

// What a model's thread runs: the model, as its engine loads it.

const engines: Readonly<Record<EngineName, Engine>> = {
  onnx: loadOnnxModel,
  transformers: loadTransformersModel,
};

export default function loadModel({ engine, ...options }: Omit<RuntimeOptions, 'maxQueue'>): Promise<Model> {
  return engines[engine](options);
}
