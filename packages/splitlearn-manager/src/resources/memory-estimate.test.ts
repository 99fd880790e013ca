import { describe, expect, it } from 'vitest';
import { estimateMemory, kvCacheBytes } from './memory-estimate.js';

const MIB = 2 ** 20;

describe('the estimate of a model', () => {
  it('is more than what was measured, and not much more', () => {
    const model = { engine: 'onnx', isolation: 'process' } as const;
    // Resident bytes of the process at most, with onnxruntime-node 1.30.
    for (const { fileMib, externalMib = 0, measuredMib } of [
      { fileMib: 4.3, measuredMib: 112 },
      { fileMib: 56.9, measuredMib: 213 },
      { fileMib: 128, measuredMib: 313 },
      { fileMib: 512, measuredMib: 1107 },
      { fileMib: 512, externalMib: 512, measuredMib: 613 },
    ]) {
      const files = { fileBytes: fileMib * MIB, externalDataBytes: externalMib * MIB };
      const estimatedMib = estimateMemory({ ...model, ...files }).memoryBytes / MIB;
      expect(estimatedMib).toBeGreaterThanOrEqual(measuredMib);
      expect(estimatedMib).toBeLessThan(1.2 * measuredMib);
    }
  });

  it('is the sum of its parts, for each instance', () => {
    const options = { fileBytes: 100, engine: 'transformers', isolation: 'thread', kvCacheBytes: 7 } as const;
    const one = estimateMemory(options);
    expect(one.parts).toEqual({ weights: 200, runtime: 80 * MIB, cache: 14 });
    expect(one.memoryBytes).toBe(214 + 80 * MIB);
    expect(estimateMemory({ ...options, instances: 3 }).memoryBytes).toBe(3 * one.memoryBytes);
  });

  it('knows the KV cache of a text model', () => {
    // GPT-2: 36 MiB per conversation of 1024 tokens in float16.
    const gpt2 = { layers: 12, heads: 12, headSize: 64, contextTokens: 1024 };
    expect(kvCacheBytes({ ...gpt2, bytesPerValue: 2 })).toBe(36 * MIB);
    expect(kvCacheBytes(gpt2)).toBe(72 * MIB);
  });
});
