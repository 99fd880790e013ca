import type { Machine } from './machine.js';

/** A GPU of NVIDIA. */
export interface GpuInfo {
  /** The N of `cuda:N`: its place among the GPUs that `CUDA_VISIBLE_DEVICES` shows, in the order of the PCI bus. */
  readonly index: number;
  readonly name: string;
  /** In bytes. */
  readonly totalBytes: number;
  /** What is taken, by whatever process, in bytes. */
  readonly usedBytes: number;
  /** In bytes. A little less than `totalBytes` without `usedBytes`: the driver keeps some. */
  readonly freeBytes: number;
}

/** A driver that hangs, as one does after an error of the hardware, must not hang whoever asks. */
const TIMEOUT_MS = 3_000;

const QUERY = [
  '--query-gpu=index,name,memory.total,memory.used,memory.free,uuid',
  '--format=csv,noheader,nounits', // memory is in MiB then
];

/** Asks `nvidia-smi` for the GPUs. None where there is no such program, or it has no answer within 3 seconds. */
export async function queryGpus({ run, environment }: Pick<Machine, 'run' | 'environment'>): Promise<GpuInfo[]> {
  const answer = await run('nvidia-smi', QUERY, TIMEOUT_MS);
  return visibleGpus(parseGpus(answer ?? ''), environment.CUDA_VISIBLE_DEVICES);
}

interface ParsedGpu extends GpuInfo {
  readonly uuid: string;
}

/** GPUs that do not tell their memory (`[N/A]`, of those that share the machine's) are left out. */
function parseGpus(csv: string): ParsedGpu[] {
  return csv.split('\n').flatMap((line) => {
    const [index, ...rest] = line.split(',').map((field) => field.trim());
    const [total, used, free, uuid] = rest.splice(-4);
    const [totalBytes, usedBytes, freeBytes] = [total, used, free].map((mib) => Number(mib) * 2 ** 20) as [
      number,
      number,
      number,
    ];
    if (!uuid || Number.isNaN(totalBytes + usedBytes + freeBytes)) return [];
    return { index: Number(index), name: rest.join(', '), totalBytes, usedBytes, freeBytes, uuid };
  });
}

/**
 * `nvidia-smi` shows all GPUs, CUDA those of `CUDA_VISIBLE_DEVICES`, in that order, up to the first that there is not:
 * https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
 */
function visibleGpus(gpus: readonly ParsedGpu[], visible: string | undefined): GpuInfo[] {
  const found = visible === undefined ? gpus : inOrder(gpus, visible.split(','));
  return found.map(({ uuid, ...gpu }, index) => ({ ...gpu, index: visible === undefined ? gpu.index : index }));
}

function inOrder(gpus: readonly ParsedGpu[], names: readonly string[]): ParsedGpu[] {
  const chosen: ParsedGpu[] = [];
  for (const name of names.map((one) => one.trim())) {
    const gpu = gpus.find(({ index, uuid }) =>
      /^\d+$/.test(name) ? index === Number(name) : name !== '' && uuid.startsWith(name),
    );
    if (!gpu || chosen.includes(gpu)) break;
    chosen.push(gpu);
  }
  return chosen;
}
