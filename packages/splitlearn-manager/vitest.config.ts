import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    name: 'manager',
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    typecheck: { enabled: true, include: ['test/**/*.test-d.ts'] },
    // Tests load models in processes of their own; a machine that is busy takes its time for that.
    testTimeout: 30_000,
    hookTimeout: 60_000,
    expect: { poll: { interval: 5, timeout: 20_000 } },
    // For the tests that load ONNX Runtime themselves; what the package does about it is tested without.
    env: { ORT_DISABLE_TELEMETRY: '1' },
  },
});
