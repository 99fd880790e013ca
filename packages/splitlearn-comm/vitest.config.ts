import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    name: 'comm',
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    // grpc-js prints errors that it also throws.
    env: { GRPC_VERBOSITY: 'NONE' },
    setupFiles: ['test/support/fail-on-warnings.ts'],
    typecheck: { enabled: true, include: ['test/**/*.test-d.ts'] },
  },
});
