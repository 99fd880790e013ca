import { setPriority } from 'node:os';
import type { Model } from '@splitlearn/comm/model';
import type { Engine } from '../engines/engine.js';
import { loadModuleModel } from '../engines/module.js';
import { loadOnnxModel } from '../engines/onnx.js';
import { loadTransformersModel } from '../engines/transformers.js';
import type { EngineName, ThreadOptions } from './model-runtime.js';

// What a model's thread runs: the model, as its engine loads it.

const engines: Readonly<Record<EngineName, Engine>> = {
  module: loadModuleModel,
  onnx: loadOnnxModel,
  transformers: loadTransformersModel,
};

/** https://man7.org/linux/man-pages/man7/sched.7.html: with 10, a thread that serves gets the core when it has work. */
const NICENESS = 10;

// On Linux priorities are those of threads, and the threads that ONNX Runtime makes inherit this one's. So where all
// cores compute, health checks and new requests still come first. Elsewhere it would be the whole process's.
if (process.platform === 'linux') setPriority(NICENESS);

export default function loadModel({ engine, ...options }: ThreadOptions): Promise<Model> {
  return engines[engine](options);
}
