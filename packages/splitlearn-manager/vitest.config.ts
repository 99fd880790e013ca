import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    name: 'manager',
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    typecheck: { enabled: true, include: ['test/**/*.test-d.ts'] },
  },
});
