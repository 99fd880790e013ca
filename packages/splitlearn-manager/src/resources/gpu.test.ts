import { describe, expect, it, vi } from 'vitest';
import { queryGpus } from './gpu.js';

const MIB = 2 ** 20;

const CSV = [
  '0, NVIDIA A100-SXM4-40GB, 40960, 1024, 39900, GPU-aaaa',
  '1, Tesla T4, 15360, 0, 15000, GPU-bbbb',
  '2, NVIDIA RTX, 6000, of the Ada kind, 48000, 100, 47000, GPU-cccc',
  '',
].join('\n');

const gpus = (csv: string | undefined, visible?: string) =>
  queryGpus({ run: async () => csv, environment: { CUDA_VISIBLE_DEVICES: visible } });

const names = async (visible?: string) => (await gpus(CSV, visible)).map(({ index, name }) => `${index} ${name}`);

describe('the GPUs', () => {
  it('are what nvidia-smi says, in bytes', async () => {
    const run = vi.fn(async () => CSV);
    const [first, , third] = await queryGpus({ run, environment: {} });
    expect(first).toEqual({
      index: 0,
      name: 'NVIDIA A100-SXM4-40GB',
      totalBytes: 40960 * MIB,
      usedBytes: 1024 * MIB,
      freeBytes: 39900 * MIB,
    });
    expect(third).toMatchObject({ index: 2, name: 'NVIDIA RTX, 6000, of the Ada kind', freeBytes: 47000 * MIB });
    const [[program, parameters, timeoutMs]] = run.mock.calls as unknown as [[string, string[], number]];
    expect(program).toBe('nvidia-smi');
    expect(parameters).toContain('--format=csv,noheader,nounits');
    expect(timeoutMs).toBeGreaterThan(0);
  });

  it.each([undefined, '', 'No devices were found\n', '0, NVIDIA GB10, [N/A], [N/A], [N/A], GPU-dddd\n'])(
    'are none where the answer is %j',
    async (csv) => {
      expect(await gpus(csv)).toEqual([]);
    },
  );

  it('are numbered as CUDA does', async () => {
    const [a100, t4, rtx] = ['NVIDIA A100-SXM4-40GB', 'Tesla T4', 'NVIDIA RTX, 6000, of the Ada kind'];
    expect(await names()).toEqual([`0 ${a100}`, `1 ${t4}`, `2 ${rtx}`]);
    expect(await names('2,0')).toEqual([`0 ${rtx}`, `1 ${a100}`]);
    expect(await names('GPU-bb')).toEqual([`0 ${t4}`]);
    expect(await names('1, 7, 0')).toEqual([`0 ${t4}`]);
    expect(await names('1,1')).toEqual([`0 ${t4}`]);
    expect(await names('')).toEqual([]);
    expect(await names('-1')).toEqual([]);
  });
});
