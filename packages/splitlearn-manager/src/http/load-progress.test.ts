import { EventEmitter } from 'node:events';
import { describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import type { ManagerEvents } from '../models/manager-events.js';
import { type ModelConfig, parseModelConfig } from '../models/model-config.js';
import type { ManagedModelInfo } from '../models/model-info.js';
import type { DownloadProgress } from '../sources/hub/progress.js';
import { loadWithProgress } from './load-progress.js';
import { modelStatus } from './model-status.js';

const info = { modelId: 'gpt2', leases: 3 } as ManagedModelInfo;
const download = (repository: string) => ({ repository, bytes: 1 }) as DownloadProgress;

/** Tells what a manager would while it loads a model, and of others that are loaded at the same time. */
class FakeManager extends EventEmitter<ManagerEvents> {
  error: unknown;

  async loadModel(): Promise<ManagedModelInfo> {
    for (const repository of ['Xenova/gpt2', 'Xenova/bert']) this.emit('download', download(repository));
    for (const modelId of ['gpt2', 'bert', 'Xenova/gpt2', 'mine']) this.emit('state', { modelId, state: 'READY' });
    if (this.error) throw this.error;
    return info;
  }
}

async function progressOf(config: ModelConfig): Promise<unknown[]> {
  const told: unknown[] = [];
  await loadWithProgress(new FakeManager(), parseModelConfig(config), (progress) => told.push(progress));
  return told;
}

const downloaded = { type: 'download', repository: 'Xenova/gpt2', bytes: 1 };

describe('the progress of a load', () => {
  it('is that of the repository that a name stands for, and of the model', async () => {
    expect(await progressOf({ source: 'gpt2' })).toEqual([
      downloaded,
      { type: 'state', modelId: 'gpt2', state: 'READY' },
    ]);
  });

  it('is that of a repository by its own name', async () => {
    expect(await progressOf({ source: 'Xenova/gpt2' })).toEqual([
      downloaded,
      { type: 'state', modelId: 'gpt2', state: 'READY' },
      { type: 'state', modelId: 'Xenova/gpt2', state: 'READY' },
    ]);
  });

  it('is that of the model by the name that it is given', async () => {
    expect(await progressOf({ source: 'Xenova/gpt2', modelId: 'mine' })).toEqual([
      downloaded,
      { type: 'state', modelId: 'mine', state: 'READY' },
    ]);
  });

  it('is that of a file by its name', async () => {
    expect(await progressOf({ source: './models/bert.onnx' })).toEqual([
      { type: 'state', modelId: 'bert', state: 'READY' },
    ]);
  });

  it('leaves no listener behind, however the load ends', async () => {
    const manager = new FakeManager();
    const config = parseModelConfig('gpt2');
    expect(await loadWithProgress(manager, config, () => {})).toBe(info);
    manager.error = new ManagerError('MODEL_LOAD_FAILED', 'no');
    await expect(loadWithProgress(manager, config, () => {})).rejects.toBe(manager.error);
    expect(manager.eventNames()).toEqual([]);
  });
});

describe('the status of a model', () => {
  it('is what is known of it, and how its requests have gone', () => {
    const latencyMs = { mean: 1, p50: 2, p95: 3, p99: 4 };
    expect(modelStatus(info, { requests: 7, failed: 2, latencyMs })).toEqual({
      ...{ ...info, inFlight: 3, requests: 7, failed: 2, p50Ms: 2, p99Ms: 4 },
    });
  });

  it('is all zeroes where there were no requests', () => {
    expect(modelStatus(info)).toMatchObject({ inFlight: 3, requests: 0, failed: 0, p50Ms: 0, p99Ms: 0 });
  });
});
