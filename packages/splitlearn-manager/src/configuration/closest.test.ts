import { describe, expect, it } from 'vitest';
import { closest } from './closest.js';

const known = ['port', 'host', 'maxModels', 'maxMemoryPercent', 'keepAliveMs'];

describe('the nearest name', () => {
  it.each([
    ['prot', 'port'],
    ['ports', 'port'],
    ['Port', 'port'],
    ['hots', 'host'],
    ['max_models', 'maxModels'],
    ['max-model', 'maxModels'],
    ['keepAlive', 'keepAliveMs'],
    ['maxMemoryPrecent', 'maxMemoryPercent'],
  ])('of %s is %s', (name, meant) => {
    expect(closest(name, known)).toBe(meant);
  });

  it.each(['', 'zzzz', 'trop', 'models', 'p', 'x'.repeat(100_000)])('of %j is none', (name) => {
    expect(closest(name, known)).toBeUndefined();
  });
});
