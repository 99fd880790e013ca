import { describe, expect, it, vi } from 'vitest';
import { ManagerError } from '../errors.js';
import type { GpuInfo } from './gpu.js';
import { ResourceManager } from './resource-manager.js';

const MIB = 2 ** 20;

/** A machine with GPUs of 1000 MiB, whose free memory tests set; its clock stands still until they move it. */
function machine({ freeMib = [1000] }: { freeMib?: number[] } = {}) {
  let nowMs = 0;
  const gpus = vi.fn(
    async (): Promise<GpuInfo[]> =>
      freeMib.map((free, index) => ({
        index,
        name: 'T',
        totalBytes: 1000 * MIB,
        usedBytes: (1000 - free) * MIB,
        freeBytes: free * MIB,
      })),
  );
  const memory = () => 10_000 * MIB;
  const manager = new ResourceManager({
    probes: {
      totalMemoryBytes: memory,
      availableMemoryBytes: memory,
      gpus,
      backends: () => [{ name: 'cpu' }, { name: 'cuda' }],
    },
    now: () => nowMs,
  });
  const pass = (milliseconds: number) => {
    nowMs += milliseconds;
  };
  const reserve = (modelId: string, device: string, mib: number) =>
    manager.reserve(modelId, { memoryBytes: 10 * MIB, device, gpuMemoryBytes: mib * MIB });
  return { manager, gpus, freeMib, pass, reserve };
}

function failure(work: () => unknown): ManagerError {
  try {
    work();
  } catch (error) {
    expect(error).toBeInstanceOf(ManagerError);
    return error as ManagerError;
  }
  return expect.fail('nothing was thrown');
}

describe('the GPUs', () => {
  it('are asked for at most once a second, and by many at once', async () => {
    const { manager, gpus, pass } = machine();
    await Promise.all([manager.getGpuInfo(), manager.getGpuInfo(), manager.findBestDevice()]);
    pass(999);
    expect(await manager.getGpuInfo()).toHaveLength(1);
    expect(gpus).toHaveBeenCalledTimes(1);
    pass(1);
    await manager.getGpuInfo();
    expect(gpus).toHaveBeenCalledTimes(2);
  });

  it('are as the last answer to be asked for says, not as the last to come', async () => {
    const { manager, gpus, pass } = machine();
    const answers: ((gpus: GpuInfo[]) => void)[] = [];
    gpus.mockImplementation(() => new Promise((resolve) => answers.push(resolve)));
    const first = manager.getGpuInfo();
    pass(1000);
    const second = manager.getGpuInfo();
    const gpu = { index: 0, name: 'T', totalBytes: 5, usedBytes: 0, freeBytes: 5 };
    answers[1]?.([gpu]);
    await second;
    answers[0]?.([]);
    await first;
    expect(manager.getCurrentUsage().gpus).toEqual([{ ...gpu, reservedBytes: 0 }]);
  });

  it('are not asked for by those who want none', async () => {
    const { manager, gpus } = machine();
    expect(await manager.findBestDevice('cpu')).toBe('cpu');
    expect(gpus).not.toHaveBeenCalled();
    expect(manager.getCurrentUsage().gpus).toEqual([]);
  });

  it('are chosen by what is free of them without what has been reserved', async () => {
    const { manager, reserve } = machine({ freeMib: [800, 600] });
    expect(await manager.findBestDevice('auto', { memoryBytes: 500 * MIB })).toBe('cuda:0');
    expect(reserve('a', 'cuda:0', 500)).toMatchObject({ device: 'cuda:0', gpuMemoryBytes: 500 * MIB });
    expect(await manager.findBestDevice('cuda', { memoryBytes: 500 * MIB })).toBe('cuda:1');
    reserve('b', 'cuda:1', 500);
    expect(await manager.findBestDevice('auto', { memoryBytes: 500 * MIB })).toBe('cpu');
    await expect(manager.findBestDevice('cuda:1', { memoryBytes: 500 * MIB })).rejects.toMatchObject({
      code: 'DEVICE_UNAVAILABLE',
      message: expect.stringContaining('100 MiB'),
    });
    manager.releaseModel('b');
    expect(await manager.findBestDevice('cuda', { memoryBytes: 500 * MIB })).toBe('cuda:1');
  });

  it('are not given to two models that are loaded at the same time', async () => {
    const { manager, reserve } = machine({ freeMib: [800] });
    await manager.findBestDevice();
    reserve('a', 'cuda:0', 500);
    const error = failure(() => reserve('b', 'cuda:0', 301));
    expect(error.code).toBe('INSUFFICIENT_MEMORY');
    for (const part of ['301 MiB of cuda:0', 'cuda:0 has 300 MiB left', 'unload'])
      expect(error.message).toContain(part);
    expect(manager.getCurrentUsage()).toMatchObject({ reservedBytes: 10 * MIB, gpus: [{ reservedBytes: 500 * MIB }] });
    const check = manager.checkAvailableResources({ memoryBytes: 0, gpu: { index: 0, memoryBytes: 301 * MIB } });
    expect(check).toMatchObject({
      fits: false,
      shortBytes: 0,
      gpu: { index: 0, freeBytes: 300 * MIB, shortBytes: MIB },
    });
    reserve('b', 'cuda:0', 300);
  });

  it('say themselves what loaded models use, once they are asked again', async () => {
    const { manager, freeMib, pass, reserve } = machine();
    const leftMib = () =>
      (manager.checkAvailableResources({ memoryBytes: 0, gpu: { index: 0, memoryBytes: 0 } }).gpu?.freeBytes ?? 0) /
      MIB;
    await manager.getGpuInfo();
    reserve('a', 'cuda:0', 500);
    freeMib[0] = 600; // the model took 400, and is measured a little later
    pass(5000);
    manager.recordUse('a', 10 * MIB, 400 * MIB);
    expect(leftMib()).toBe(600); // the last answer is from before
    pass(1);
    await manager.getGpuInfo();
    expect(leftMib()).toBe(600);
    freeMib[0] = 100; // somebody else's program
    pass(1000);
    await manager.getGpuInfo();
    expect(leftMib()).toBe(100);
  });

  it('keep what is reserved for a model that does not use it yet, though it has been loaded', async () => {
    const { manager, pass, reserve } = machine();
    await manager.getGpuInfo();
    reserve('a', 'cuda:0', 700);
    manager.recordUse('a', 10 * MIB);
    pass(1000);
    expect(await manager.findBestDevice('auto', { memoryBytes: 301 * MIB })).toBe('cpu');
    expect(await manager.findBestDevice('auto', { memoryBytes: 300 * MIB })).toBe('cuda:0');
  });

  it('that no one has seen are not reserved', async () => {
    const { manager, reserve } = machine();
    expect(failure(() => reserve('a', 'cuda:0', 1)).code).toBe('DEVICE_UNAVAILABLE');
    await manager.getGpuInfo();
    expect(failure(() => reserve('a', 'cuda:1', 1)).message).toContain('cuda:1');
    expect(reserve('a', 'cuda:0', 1).device).toBe('cuda:0');
    expect(reserve('b', 'coreml', 1).device).toBe('coreml');
  });
});
