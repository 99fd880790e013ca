import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { readExample, readExamples } from './readme-examples.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const readmes = ['README.md', 'packages/splitlearn-comm/README.md', 'packages/splitlearn-manager/README.md'];
const examples = readmes.flatMap((readme) =>
  [...readExamples(join(root, readme))].map(([name, program]) => ({ readme, name, program })),
);

it.each(examples)("$readme: example '$name' runs as it stands", async ({ program }) => {
  // Inside e2e/, so that the packages are found by their names.
  const folder = await mkdtemp(join(root, 'e2e/.example-'));
  try {
    await writeFile(join(folder, 'example.mjs'), program);
    const { stdout } = await promisify(execFile)(process.execPath, ['example.mjs'], { cwd: folder, timeout: 50_000 });
    expect(stdout).not.toBe('');
  } finally {
    await rm(folder, { recursive: true });
  }
});

it.each(['managed', 'echo'])("README.md has the example '%s', which the packed packages are tried with", (name) => {
  expect(readExample(join(root, 'README.md'), name)).toContain('@splitlearn/');
});
