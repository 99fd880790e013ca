import { defineConfig } from 'vitest/config';

// The tests here start Node, the compiler and the linter as processes of their own.
export default defineConfig({ test: { name: 'e2e', include: ['*.test.ts'], testTimeout: 60_000 } });
