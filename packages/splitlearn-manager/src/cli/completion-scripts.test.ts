import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TestEnvironment } from '../../test/support/cli-environment.js';
import { createProgram } from './program.js';

const has = (shell: string) => spawnSync(shell, ['-c', ':']).status === 0;
const script = async (shell: string) => (await new TestEnvironment().run('completion', shell)).out;

const program = createProgram(new TestEnvironment(), async () => {});
const commands = program.commands.map((command) => command.name());

describe.each(['bash', 'zsh', 'fish'])('the script for %s', (shell) => {
  it('has every command and every option', async () => {
    const text = await script(shell);
    for (const command of program.commands) {
      expect(text).toContain(command.name());
      for (const { long } of command.options) expect(text).toContain(shell === 'fish' ? `-l ${long?.slice(2)}` : long);
    }
  });

  it.skipIf(!has(shell))('is a script of that shell', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sl-'));
    const file = join(folder, 'script');
    writeFileSync(file, await script(shell));
    const { status, stderr } = spawnSync(shell, ['-n', file], { encoding: 'utf8' });
    rmSync(folder, { recursive: true });
    expect([status, stderr]).toEqual([0, '']);
  });
});

describe.skipIf(!has('bash'))('in bash', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'sl-'));
    writeFileSync(join(folder, 'my model.onnx'), '');
    writeFileSync(join(folder, 'splitlearn.yaml'), '');
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  async function complete(line: string): Promise<string[]> {
    const words = line.split(' ');
    const quoted = words.map((word) => `'${word}'`).join(' ');
    const ask = `COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _splitlearn; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout } = spawnSync('bash', ['-c', `${await script('bash')}\n${ask}`], { cwd: folder, encoding: 'utf8' });
    return stdout.split('\n').filter((word) => word !== '');
  }

  it('commands are offered first', async () => {
    expect(await complete('splitlearn ')).toEqual(expect.arrayContaining(commands));
    expect(await complete('splitlearn un')).toEqual(['unload']);
    expect(await complete('splitlearn --json p')).toEqual(['pull', 'ps', 'plan']);
  });

  it('then the options of the command, and those of all', async () => {
    expect(await complete('splitlearn ps --')).toEqual([
      ...['--watch', '--interval', '--admin', '--token', '--json', '--debug', '--no-color', '--version', '--help'],
    ]);
  });

  it('values of options, names of models, and files', async () => {
    expect(await complete('splitlearn pull --dtype q')).toEqual(['q8', 'q4', 'q4f16']);
    expect(await complete('splitlearn serve --config s')).toEqual(['splitlearn.yaml']);
    expect(await complete('splitlearn run tiny')).toEqual(['tiny-gpt2']);
    expect(await complete('splitlearn run my')).toEqual(['my model.onnx']);
    expect(await complete('splitlearn completion z')).toEqual(['zsh']);
    expect(await complete('splitlearn serve --port 5')).toEqual([]);
  });
});

describe.skipIf(!has('fish'))('in fish', () => {
  it('commands, options and values are offered', async () => {
    const text = await script('fish');
    const complete = (line: string) => {
      const ask = `${text}\ncomplete -C '${line}'`;
      return spawnSync('fish', ['--no-config', '-c', ask], { encoding: 'utf8' })
        .stdout.trim()
        .split('\n')
        .map((each) => each.split('\t')[0]);
    };
    expect(complete('splitlearn un')).toEqual(['unload']);
    expect(complete('splitlearn pull --dt')).toEqual(['--dtype']);
    expect(complete('splitlearn pull --dtype q8')).toEqual(['q8']);
  });
});
