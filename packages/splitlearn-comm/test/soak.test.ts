import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

// A few seconds of what `pnpm soak` does for an hour.

const MAIN = fileURLToPath(new URL('soak/main.mjs', import.meta.url));

function run(...args: string[]): Promise<{ code: number | string; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], (error, stdout, stderr) =>
      resolve({ code: error?.code ?? 0, output: stdout + stderr }),
    );
  });
}

it('every call through a bad network ends as it should, and nothing is left of it', { timeout: 90_000 }, async () => {
  const { code, output } = await run('--minutes', '0.1', '--seed', '1');
  expect(output).toMatch(/ 0 violations\n$/);
  expect(code).toBe(0);
});

it('asks for numbers', async () => {
  expect(await run('--minutes', 'many')).toMatchObject({ code: 2, output: expect.stringMatching(/^usage: /) });
});
