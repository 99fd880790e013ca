import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';

const run = promisify(execFile);

/** Runs an example as a user would: what it prints, when it ends by itself with exit code 0. */
async function output(example: string, ...args: string[]): Promise<string> {
  const path = fileURLToPath(new URL(example, import.meta.url));
  const { stdout, stderr } = await run(process.execPath, [path, ...args], { timeout: 60_000 });
  expect(stderr).toBe('');
  return stdout;
}

describe.concurrent('examples', () => {
  it('echo.mjs gets its tensor back', async () => {
    const text = await output('echo.mjs');
    expect(text).toContain('shape: [ 2, 3 ]');
    expect(text).toContain('Float32Array(6) [ 1, 2, 3, 4, 5, 6 ]');
  });

  it('custom-model.mjs runs its model in a worker', async () => {
    const text = await output('custom-model.mjs');
    expect(text).toContain('Float32Array(3) [ 10, 20, 30 ]');
    expect(text).toMatch(/queue [\d.]+ ms, compute [\d.]+ ms, all [\d.]+ ms/);
  });

  it('managed.mjs continues its prompt', async () => {
    expect(await output('managed.mjs')).toContain(' of the Spirit, and the Spirit of God');
  });

  it('multi-model.mjs serves both of its models', async () => {
    const text = await output('multi-model.mjs');
    expect(text).toContain('writer is READY and takes text');
    expect(text).toContain('logits is READY and takes input_ids, attention_mask, position_ids');
    expect(text).toMatch(/^writer: The king said .+/m);
    expect(text).toContain('so is its memory');
  });
});

describe('demo', () => {
  it('serves, streams, runs the raw network, shows its figures and gives the memory back', async () => {
    const text = await output('demo.mjs', '--prompt', 'The king');
    expect(text).toMatch(/The king \S+/);
    expect(text).toContain('logits                 float32  [1, 6, 1024]');
    expect(text).toMatch(/[\d.]+ ms = queue [\d.]+ ms \+ compute [\d.]+ ms \+ wire [\d.]+ ms/);
    expect(text).toMatch(/tiny-gpt2 +transformers +READY +\d+/);
    expect(text).toMatch(/tiny-gpt2: [\d,]{10,} bytes came back/);
  });

  it('says what is wrong with a prompt that is too long', async () => {
    await expect(output('demo.mjs', '--prompt', 'king '.repeat(400))).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringContaining('256 tokens'),
    });
  });
});
