import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { estimateMemory, kvCacheBytes } from '../resources/memory-estimate.js';
import type { LocatedModel } from '../sources/local.js';
import { parseModelConfig } from './model-config.js';
import { estimateNeed } from './model-need.js';

const FILE_BYTES = 1_000;
const GPT2 = { n_layer: 2, n_head: 4, n_embd: 32, n_positions: 64 };
const LLAMA = { num_hidden_layers: 2, num_attention_heads: 4, hidden_size: 32, max_position_embeddings: 64 };
const CACHE_BYTES = kvCacheBytes({ layers: 2, heads: 4, headSize: 8, contextTokens: 64 });
const process = { source: 'm', isolation: 'process' } as const;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'model-need-'));
  await writeFile(join(folder, 'model.onnx'), new Uint8Array(FILE_BYTES));
});
afterEach(() => rm(folder, { recursive: true }));

function located(more: Partial<LocatedModel> = {}): LocatedModel {
  const file = join(folder, 'model.onnx');
  return { modelId: 'm', engine: 'transformers', folder, file, fileBytes: FILE_BYTES, ...more };
}

/** What the KV cache of a text model with this configuration is thought to take. */
async function cacheOf(config: unknown): Promise<number> {
  await writeFile(join(folder, 'config.json'), typeof config === 'string' ? config : JSON.stringify(config));
  return (await estimateNeed(parseModelConfig(process), located())).parts.cache;
}

function cacheOfHeads(heads: number, headSize = 8): number {
  const shape = kvCacheBytes({ layers: 2, heads, headSize, contextTokens: 64 });
  const common = { fileBytes: 0, engine: 'transformers', isolation: 'process' } as const;
  return estimateMemory({ ...common, kvCacheBytes: shape }).parts.cache;
}

describe('the need of a model', () => {
  it('is none here when it runs on another machine', async () => {
    const config = parseModelConfig({ source: 'm', address: 'gpu-box:50051', instances: 3 });
    const none = { memoryBytes: 0, parts: { weights: 0, runtime: 0, cache: 0 } };
    expect(await estimateNeed(config, located())).toEqual(none);
  });

  it('is estimated from its files, its engine, and where and how often it runs', async () => {
    const isolation = 'thread';
    const config = parseModelConfig({ source: 'm', isolation, instances: 3 });
    const need = await estimateNeed(config, located({ engine: 'onnx' }));
    expect(need).toEqual(estimateMemory({ fileBytes: FILE_BYTES, engine: 'onnx', isolation, instances: 3 }));
  });

  it('takes for external data what is not in the file itself', async () => {
    const fileBytes = 9_000;
    const isolation = 'process';
    const need = await estimateNeed(parseModelConfig(process), located({ engine: 'onnx', fileBytes }));
    const externalDataBytes = fileBytes - FILE_BYTES;
    expect(need).toEqual(estimateMemory({ fileBytes, externalDataBytes, engine: 'onnx', isolation }));
    expect(need).not.toEqual(estimateMemory({ fileBytes, engine: 'onnx', isolation }));
  });

  it('takes nothing for external data when the file has grown, or is gone', async () => {
    const expected = estimateMemory({ fileBytes: 500, engine: 'onnx', isolation: 'process' });
    const grown = located({ engine: 'onnx', fileBytes: 500 });
    expect(await estimateNeed(parseModelConfig(process), grown)).toEqual(expected);
    const gone = { ...grown, file: join(folder, 'gone.onnx') };
    expect(await estimateNeed(parseModelConfig(process), gone)).toEqual(expected);
  });

  it('has no cache when its engine keeps none, whatever is in its folder', async () => {
    await writeFile(join(folder, 'config.json'), JSON.stringify(GPT2));
    const need = await estimateNeed(parseModelConfig(process), located({ engine: 'onnx' }));
    expect(need.parts.cache).toBe(0);
  });
});

describe('the cache of a text model', () => {
  it('is that of one conversation of full length, by whichever names the numbers have', async () => {
    expect(CACHE_BYTES).toBeGreaterThan(0);
    const expected = cacheOfHeads(4);
    expect(expected).toBeGreaterThanOrEqual(CACHE_BYTES);
    expect(await cacheOf(GPT2)).toBe(expected);
    expect(await cacheOf(LLAMA)).toBe(expected);
    expect(await cacheOf({ num_layers: 2, num_heads: 4, d_model: 32, n_ctx: 64 })).toBe(expected);
  });

  it('is smaller when keys and values have fewer heads than queries', async () => {
    expect(await cacheOf({ ...LLAMA, num_key_value_heads: 1 })).toBe(cacheOfHeads(1));
  });

  it('has heads of the size that the configuration says', async () => {
    expect(await cacheOf({ ...LLAMA, head_dim: 16 })).toBe(cacheOfHeads(4, 16));
  });

  it.each(Object.keys(GPT2))('is not known without %s', async (name) => {
    expect(await cacheOf({ ...GPT2, [name]: undefined })).toBe(0);
    expect(await cacheOf({ ...GPT2, [name]: '2' })).toBe(0);
  });

  it('is not known when there is no configuration, or none that can be read', async () => {
    expect((await estimateNeed(parseModelConfig(process), located())).parts.cache).toBe(0);
    expect(await cacheOf('{')).toBe(0);
  });
});
