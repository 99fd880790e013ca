import { ManagerError } from '../errors.js';
import type { Backend, BackendName } from './backends.js';

/** What a model computes on. */
export type Device = 'cpu' | 'coreml' | 'dml' | 'webgpu' | `cuda:${number}`;

/** A GPU with what is not reserved of it. */
export interface GpuRoom {
  readonly index: number;
  readonly name: string;
  /** What a new model could have, in bytes. */
  readonly freeBytes: number;
}

export interface DeviceChoice {
  readonly backends: readonly Backend[];
  readonly gpus: readonly GpuRoom[];
  /** What the model needs on the device, in bytes. Only of NVIDIA's GPUs is it known what they have. */
  readonly memoryBytes: number;
}

/**
 * Picks the device for a wish: `auto`, `cpu`, `cuda` (the GPU with the most free memory), `cuda:N`, `coreml`, `dml` or
 * `webgpu`.
 *
 * `auto` is a GPU of NVIDIA that has enough free memory, else the processor. The other devices are for those who ask
 * for them: how much memory they have left is not known, which parts of a model they compute depends on the model, and
 * WebGPU is experimental in onnxruntime-node.
 *
 * @throws ManagerError `DEVICE_UNAVAILABLE`, with what is missing and what to do; `INVALID_CONFIG` where there is no
 * device of that name.
 */
export function chooseDevice(wish: string, { backends, gpus, memoryBytes }: DeviceChoice): Device {
  const problemOf = (name: BackendName) => {
    const backend = backends.find((one) => one.name === name);
    return backend ? backend.problem : 'this build of onnxruntime-node does not have it';
  };
  const fitting = [...gpus]
    .filter(({ freeBytes }) => freeBytes >= memoryBytes)
    .sort((one, other) => other.freeBytes - one.freeBytes)
    .map(({ index }) => index);
  const [roomiest] = fitting;

  const [, family, number] = /^(auto|cpu|coreml|dml|webgpu|cuda)(?:(?<=cuda):(\d+))?$/.exec(wish) ?? [];
  switch (family) {
    case 'cpu':
      return 'cpu';
    case 'auto':
      return roomiest === undefined || problemOf('cuda') !== undefined ? 'cpu' : `cuda:${roomiest}`;
    case 'coreml':
    case 'dml':
    case 'webgpu': {
      const problem = problemOf(family);
      if (problem) throw unavailable(wish, problem);
      return family;
    }
    case 'cuda': {
      const problem = problemOf('cuda');
      if (problem) throw unavailable(wish, problem);
      const index = number === undefined ? roomiest : Number(number);
      if (index !== undefined && fitting.includes(index)) return `cuda:${index}`;
      throw unavailable(wish, missingGpu(number === undefined ? gpus : gpus.filter((gpu) => gpu.index === index)));
    }
    default:
      throw new ManagerError(
        'INVALID_CONFIG',
        `there is no device '${wish}': give auto, cpu, cuda, cuda:N, coreml, dml or webgpu`,
      );
  }

  function missingGpu(wished: readonly GpuRoom[]): string {
    if (gpus.length === 0)
      return 'nvidia-smi shows no GPU; is the driver installed, and CUDA_VISIBLE_DEVICES not empty?';
    if (wished.length === 0) return `nvidia-smi shows only ${gpus.map(({ index }) => `cuda:${index}`).join(', ')}`;
    const mib = (bytes: number) => `${Math.floor(bytes / 2 ** 20)} MiB`;
    const rooms = wished.map(({ index, name, freeBytes }) => `cuda:${index} (${name}) ${mib(freeBytes)}`).join(', ');
    return `about ${mib(memoryBytes)} of its memory are needed, but there are free: ${rooms}; unload a model there`;
  }
}

/** The N of `cuda:N`; `undefined` of all other devices. */
export function gpuIndex(device: string): number | undefined {
  const index = /^cuda:(\d+)$/.exec(device)?.[1];
  return index === undefined ? undefined : Number(index);
}

function unavailable(wish: string, problem: string): ManagerError {
  return new ManagerError('DEVICE_UNAVAILABLE', `device '${wish}' cannot be used: ${problem}; or use auto or cpu`);
}
