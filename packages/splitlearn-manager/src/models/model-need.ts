import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { estimateMemory, kvCacheBytes, type MemoryEstimate } from '../resources/memory-estimate.js';
import type { LocatedModel } from '../sources/local.js';
import type { ResolvedModelConfig } from './model-config.js';

/** What a model is thought to take, from its files and its configuration. */
export async function estimateNeed(config: ResolvedModelConfig, located: LocatedModel): Promise<MemoryEstimate> {
  const { isolation, instances, address } = config;
  if (address !== undefined) return { memoryBytes: 0, parts: { weights: 0, runtime: 0, cache: 0 } };
  const { engine, fileBytes, file } = located;
  const { size } = await stat(file).catch(() => ({ size: fileBytes }));
  const externalDataBytes = Math.max(0, fileBytes - size);
  const cache = engine === 'transformers' ? await kvCacheOf(located) : 0;
  return estimateMemory({ fileBytes, externalDataBytes, engine, isolation, instances, kvCacheBytes: cache });
}

/** By the names that config.json has for these numbers in the models of the hub; 0 where they are not there. */
async function kvCacheOf({ folder }: LocatedModel): Promise<number> {
  const config = await readJson(join(folder, 'config.json'));
  const number = (...names: string[]) => names.map((name) => config[name]).find((value) => typeof value === 'number');
  const layers = number('num_hidden_layers', 'n_layer', 'num_layers');
  const queryHeads = number('num_attention_heads', 'n_head', 'num_heads');
  const hidden = number('hidden_size', 'n_embd', 'd_model');
  const contextTokens = number('max_position_embeddings', 'n_positions', 'n_ctx');
  if (!layers || !queryHeads || !hidden || !contextTokens) return 0;
  const heads = number('num_key_value_heads') ?? queryHeads;
  return kvCacheBytes({ layers, heads, headSize: number('head_dim') ?? hidden / queryHeads, contextTokens });
}

async function readJson(path: string): Promise<Record<string, unknown>> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch {
    return {};
  }
}
