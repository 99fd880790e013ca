import { defineConfig } from 'vitest/config';

export default defineConfig({ test: { projects: ['packages/splitlearn-*', 'examples', 'e2e'] } });
