import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import { type Backend, installedBackends } from './backends.js';
import { chooseDevice, type DeviceChoice } from './devices.js';
import { type Machine, thisMachine } from './machine.js';

const MIB = 2 ** 20;

const two = [
  { index: 0, name: 'small', freeBytes: 100 * MIB },
  { index: 1, name: 'large', freeBytes: 500 * MIB },
];
const cuda: Backend[] = [{ name: 'cpu' }, { name: 'cuda' }];

function failure(wish: string, choice: DeviceChoice): ManagerError {
  try {
    chooseDevice(wish, choice);
  } catch (error) {
    expect(error).toBeInstanceOf(ManagerError);
    return error as ManagerError;
  }
  return expect.fail('nothing was thrown');
}

describe('a device', () => {
  it.each([
    { wish: 'auto', mib: 50, device: 'cuda:1' },
    { wish: 'auto', mib: 500, device: 'cuda:1' },
    { wish: 'auto', mib: 501, device: 'cpu' },
    { wish: 'cpu', mib: 50, device: 'cpu' },
    { wish: 'cuda', mib: 50, device: 'cuda:1' },
    { wish: 'cuda:0', mib: 100, device: 'cuda:0' },
  ])('for $wish with $mib MiB is $device', ({ wish, mib, device }) => {
    expect(chooseDevice(wish, { backends: cuda, gpus: two, memoryBytes: mib * MIB })).toBe(device);
  });

  it.each([
    { backends: [{ name: 'cpu' }] as Backend[], gpus: two },
    { backends: [{ name: 'cpu' }, { name: 'cuda', problem: 'no file' }] as Backend[], gpus: two },
    { backends: cuda, gpus: [] },
    { backends: [{ name: 'cpu' }, { name: 'webgpu' }, { name: 'coreml' }, { name: 'dml' }] as Backend[], gpus: [] },
  ])('is the processor where there is nothing better: $backends', (choice) => {
    expect(chooseDevice('auto', { ...choice, memoryBytes: 0 })).toBe('cpu');
  });

  it.each(['coreml', 'dml', 'webgpu'] as const)('is %s for those who ask for it', (name) => {
    expect(chooseDevice(name, { backends: [{ name: 'cpu' }, { name }], gpus: [], memoryBytes: 0 })).toBe(name);
  });

  it.each([
    { wish: 'cuda', backends: [{ name: 'cpu' }], gpus: two, parts: ['this build of onnxruntime-node'] },
    {
      wish: 'cuda:1',
      backends: [{ name: 'cuda', problem: 'a file is missing' }],
      gpus: two,
      parts: ['a file is missing'],
    },
    { wish: 'cuda', backends: cuda, gpus: [], parts: ['nvidia-smi', 'driver', 'CUDA_VISIBLE_DEVICES'] },
    { wish: 'cuda:2', backends: cuda, gpus: two, parts: ['only cuda:0, cuda:1'] },
    { wish: 'cuda:0', backends: cuda, gpus: two, parts: ['300 MiB', 'cuda:0 (small) 100 MiB', 'unload'], mib: 300 },
    { wish: 'cuda', backends: cuda, gpus: two, parts: ['600 MiB', '100 MiB', 'cuda:1 (large) 500 MiB'], mib: 600 },
    { wish: 'coreml', backends: cuda, gpus: [], parts: ['this build of onnxruntime-node'] },
    { wish: 'webgpu', backends: [{ name: 'webgpu', problem: 'no graphics' }], gpus: [], parts: ['no graphics'] },
  ] as { wish: string; backends: Backend[]; gpus: typeof two; parts: string[]; mib?: number }[])(
    '$wish that cannot be had is told why: $parts',
    ({ wish, backends, gpus, parts, mib = 0 }) => {
      const { code, message } = failure(wish, { backends, gpus, memoryBytes: mib * MIB });
      expect(code).toBe('DEVICE_UNAVAILABLE');
      for (const part of [`'${wish}'`, 'use auto or cpu', ...parts]) expect(message).toContain(part);
    },
  );

  it.each(['gpu', 'cpu:1', 'cuda:', 'cuda:x', ''])("'%s' does not exist", (wish) => {
    expect(failure(wish, { backends: cuda, gpus: two, memoryBytes: 0 }).code).toBe('INVALID_CONFIG');
  });
});

describe('the backends of ONNX Runtime', () => {
  function backends(build: string, files: readonly string[], differences: Partial<Machine> = {}): readonly Backend[] {
    const [platform, architecture] = build.split('/') as [NodeJS.Platform, string];
    const folder = `/ort/bin/napi-v6/${build}`;
    const exists = (path: string) => path === folder || files.some((file) => path === `${folder}/${file}`);
    const machine = { runtimeFolder: () => '/ort', list: () => [], exists, ...differences };
    return installedBackends({ ...thisMachine, platform, architecture, ...machine });
  }

  it('are those of the platform whose files are there', () => {
    const graphics = { list: () => ['card0', 'renderD128'] };
    const provider = 'libonnxruntime_providers_cuda.so';
    expect(backends('linux/x64', [provider], graphics)).toEqual([
      { name: 'cpu' },
      { name: 'webgpu' },
      { name: 'cuda' },
    ]);
    expect(backends('linux/arm64', [])).toEqual([{ name: 'cpu' }]);
    expect(backends('darwin/arm64', [])).toEqual([{ name: 'cpu' }, { name: 'webgpu' }, { name: 'coreml' }]);
    expect(backends('win32/x64', ['DirectML.dll'])).toEqual([{ name: 'cpu' }, { name: 'webgpu' }, { name: 'dml' }]);
    const [, webgpu, without] = backends('linux/x64', []);
    expect(webgpu?.problem).toContain('/dev/dri');
    for (const part of [provider, 'npm rebuild onnxruntime-node']) expect(without?.problem).toContain(part);
  });

  it('are the processor alone where there is no build', () => {
    expect(backends('linux/x64', [], { runtimeFolder: () => undefined })).toEqual([{ name: 'cpu' }]);
    expect(backends('linux/x64', [], { exists: () => false })).toEqual([{ name: 'cpu' }]);
  });

  it('are those that ONNX Runtime itself has', () => {
    const folder = thisMachine.runtimeFolder();
    const script = `console.log(JSON.stringify(require(${JSON.stringify(folder)}).listSupportedBackends()))`;
    const environment = { ...process.env, ORT_DISABLE_TELEMETRY: '1' };
    const answer = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', env: environment });
    // TensorRT needs CUDA, and is no device of its own.
    const known = (JSON.parse(answer) as { name: string }[])
      .map(({ name }) => name)
      .filter((name) => name !== 'tensorrt');
    const found = installedBackends(thisMachine).map(({ name }) => name);
    expect([...found].sort()).toEqual(known.sort());
  });
});
