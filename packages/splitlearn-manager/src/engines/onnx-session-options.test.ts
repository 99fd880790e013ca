import { expect, it } from 'vitest';
import { executionProviders, sessionOptions } from './onnx-session-options.js';

it.each([
  ['cpu', ['cpu']],
  ['cuda', ['cuda']],
  ['cuda:0', [{ name: 'cuda', deviceId: 0 }]],
  ['cuda:3', [{ name: 'cuda', deviceId: 3 }]],
  ['coreml', ['coreml']],
  ['dml', ['dml']],
  ['webgpu', ['webgpu']],
])('the device %s is %j to ONNX Runtime', (device, providers) => {
  expect(executionProviders(device)).toEqual(providers);
  expect(sessionOptions({ threads: 3, device })).toMatchObject({ executionProviders: providers, intraOpNumThreads: 3 });
});

it('the CPU is the default, and only DirectML does without planning memory', () => {
  expect(sessionOptions({ threads: 1 }).executionProviders).toEqual(['cpu']);
  expect(sessionOptions({ threads: 1 })).not.toHaveProperty('enableMemPattern');
  expect(sessionOptions({ threads: 1, device: 'dml' })).toHaveProperty('enableMemPattern', false);
});
