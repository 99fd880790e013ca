import { describe, expect, it } from 'vitest';
import { CallCounter } from './call-counter.js';

describe('requests that are counted for health', () => {
  it('are counted all together, and for each model', () => {
    const calls = new CallCounter();
    for (const code of ['OK', 'OK', 'QUEUE_FULL', 'OVERLOADED', 'MODEL_CRASHED']) calls.record({ modelId: 'a', code });
    calls.record({ modelId: 'b', code: 'INTERNAL' });
    expect(calls.ofModel('a')).toEqual({ finished: 5, refused: 2, failed: 1 });
    expect(calls.ofModel('b')).toEqual({ finished: 1, refused: 0, failed: 1 });
    expect(calls.ofModel('c')).toEqual({ finished: 0, refused: 0, failed: 0 });
    expect(calls.all()).toEqual({ finished: 6, refused: 2, failed: 2 });
  });

  it('make nobody ill by a fault of the caller', () => {
    const calls = new CallCounter();
    const codes = ['INVALID_INPUT', 'INFERENCE_FAILED', 'CANCELLED', 'DEADLINE_EXCEEDED', 'MODEL_MEMORY_EXCEEDED'];
    for (const code of codes) calls.record({ modelId: 'a', code });
    expect(calls.ofModel('a')).toEqual({ finished: 5, refused: 0, failed: 0 });
  });

  it('are those of no model where they reached none', () => {
    const calls = new CallCounter();
    calls.record({ modelId: '', code: 'MODEL_NOT_FOUND' });
    expect([calls.all().finished, calls.ofModel('').finished]).toEqual([1, 0]);
  });
});
