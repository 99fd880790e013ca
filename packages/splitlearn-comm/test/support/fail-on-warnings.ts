import { afterAll, expect } from 'vitest';

// A process warning (listeners that leak, a timer that overflows) is a defect like any other.

const warnings: string[] = [];
process.on('warning', ({ name, message }) => {
  if (name !== 'ExperimentalWarning') warnings.push(`${name}: ${message}`);
});

afterAll(() => {
  expect(warnings, 'process warnings').toEqual([]);
});
