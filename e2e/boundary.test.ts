// What keeps the two packages apart, each lock with a test that fails when it is broken. The last lock, the packed
// packages in an empty project, is packed-install.mjs.
import { execFile, execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));
const bin = (name: string) => join(root, 'node_modules/.bin', name);

describe('exports', () => {
  it.each([
    ['splitlearn-comm', ['.', './model', './testing', './package.json']],
    ['splitlearn-manager', ['.', './package.json']],
  ])('%s exports its public entries only', (folder, entries) => {
    const { exports } = JSON.parse(readFileSync(join(root, 'packages', folder, 'package.json'), 'utf8'));
    expect(Object.keys(exports).sort()).toEqual([...entries].sort());
  });

  it.each([
    '@splitlearn/comm/dist/index.js',
    '@splitlearn/comm/src/index.ts',
    '@splitlearn/comm/generated/compute.js',
    '@splitlearn/manager/dist/index.js',
    '@splitlearn/manager/src/index.ts',
  ])('Node.js refuses to import %s', async (specifier) => {
    const program = `await import('${specifier}').catch((error) => console.log(error.code))`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program], {
      cwd: join(root, 'e2e'),
    });
    expect(stdout.trim()).toBe('ERR_PACKAGE_PATH_NOT_EXPORTED');
  });
});

describe('types', () => {
  it('no TypeScript project knows another way to a package than its name', () => {
    const projects = execFileSync(
      'git',
      ['ls-files', '--cached', '--others', '--exclude-standard', '*tsconfig*.json'],
      {
        cwd: root,
        encoding: 'utf8',
      },
    );
    for (const project of projects.trim().split('\n')) {
      const text = readFileSync(join(root, project), 'utf8');
      expect(text, project).not.toMatch(/"(paths|baseUrl|rootDirs|references|customConditions)"/);
    }
  });

  it("manager is compiled against comm's built types", () => {
    const project = join(root, 'packages/splitlearn-manager/tsconfig.build.json');
    const files = execFileSync(bin('tsc'), ['-p', project, '--listFilesOnly'], { encoding: 'utf8' }).split('\n');
    expect(files).toContain(join(root, 'packages/splitlearn-comm/dist/index.d.ts'));
    expect(files.filter((file) => file.includes('/splitlearn-comm/src/'))).toEqual([]);
  });
});

describe('lint', () => {
  const allowed = [
    ['packages/splitlearn-comm/src/server/a.ts', '@grpc/grpc-js'],
    ['packages/splitlearn-comm/src/server/b.ts', '../tensor.js'],
    ['packages/splitlearn-comm/src/codec/c.ts', 'protobufjs/minimal.js'],
    ['packages/splitlearn-manager/src/server/a.ts', '@splitlearn/comm'],
    ['packages/splitlearn-manager/src/server/b.ts', '../models/lease.js'],
    ['packages/splitlearn-manager/test/c.test.ts', '@splitlearn/comm/testing'],
    ['packages/splitlearn-manager/src/engines/module.ts', '@splitlearn/comm/model'],
    ['packages/splitlearn-manager/src/engines/onnx-tensors.ts', '@splitlearn/comm/model'],
    ['packages/splitlearn-manager/src/engines/onnx.ts', 'onnxruntime-node'],
    ['packages/splitlearn-manager/src/engines/onnx-session.ts', 'onnxruntime-node'],
    ['packages/splitlearn-manager/src/engines/transformers.ts', '@xenova/transformers'],
    ['packages/splitlearn-manager/src/engines/transformers/a.ts', '@xenova/transformers'],
    ['examples/a.mjs', '@splitlearn/manager'],
    ['benchmarks/a.mjs', '@grpc/grpc-js'],
  ] as const;
  const forbidden = [
    ['packages/splitlearn-comm/src/a.ts', '@splitlearn/manager'],
    ['packages/splitlearn-comm/src/b.ts', 'onnxruntime-node'],
    ['packages/splitlearn-comm/src/c.ts', '@xenova/transformers'],
    ['packages/splitlearn-comm/src/d.ts', '../../splitlearn-manager/src/index.js'],
    ['packages/splitlearn-comm/test/e.test.ts', '@splitlearn/comm/dist/tensor.js'],
    ['packages/splitlearn-manager/src/a.ts', '@splitlearn/comm/dist/tensor.js'],
    ['packages/splitlearn-manager/src/b.ts', '../../splitlearn-comm/src/index.js'],
    ['packages/splitlearn-manager/src/c.ts', '@grpc/grpc-js'],
    ['packages/splitlearn-manager/src/d.ts', '@grpc/grpc-js/build/src/index.js'],
    ['packages/splitlearn-manager/src/e.ts', 'protobufjs'],
    ['packages/splitlearn-manager/src/f.ts', 'protobufjs/minimal.js'],
    ['packages/splitlearn-manager/src/g.ts', 'onnxruntime-node'],
    ['packages/splitlearn-manager/src/h.ts', '@xenova/transformers'],
    ['packages/splitlearn-manager/src/engines/a.ts', 'onnxruntime-node'],
    ['packages/splitlearn-manager/src/engines/transformers/b.ts', 'onnxruntime-node'],
    ['packages/splitlearn-manager/src/engines/c.ts', '@splitlearn/comm'],
    ['packages/splitlearn-manager/src/engines/onnx-all.ts', '@splitlearn/comm'],
    ['packages/splitlearn-manager/src/engines/onnx-deep.ts', '@splitlearn/comm/src/tensor.ts'],
    ['packages/splitlearn-manager/src/engines/onnx-grpc.ts', '@grpc/grpc-js'],
    ['packages/splitlearn-manager/test/i.test.ts', '@grpc/grpc-js'],
    ['examples/b.mjs', '../packages/splitlearn-comm/dist/index.js'],
    ['benchmarks/b.mjs', '@splitlearn/manager/dist/index.js'],
  ] as const;

  // The real rules, tried on files that import one thing each, in a folder of their own.
  const folder = mkdtempSync(join(tmpdir(), 'splitlearn-lint-'));
  let refused: string[] = [];

  beforeAll(async () => {
    cpSync(join(root, 'biome.json'), join(folder, 'biome.json'));
    for (const [file, specifier] of [...allowed, ...forbidden]) {
      mkdirSync(dirname(join(folder, file)), { recursive: true });
      // Lazily, or as types: the rule has to hold for every way to import.
      writeFileSync(
        join(folder, file),
        `export * from '${specifier}';\nexport const lazy = () => import('${specifier}');\n`,
      );
    }
    const rules = ['--vcs-enabled=false', '--only=style/noRestrictedImports'];
    const report = ['--reporter=github', '--max-diagnostics=none'];
    const { stdout } = await promisify(execFile)(bin('biome'), ['lint', ...rules, ...report, '.'], {
      cwd: folder,
    }).catch((failed: { stdout: string }) => failed);
    refused = stdout.split('\n').filter((line) => line.startsWith('::error'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  it.each(allowed)('%s may import %s', (file) => {
    expect(refused.filter((line) => line.includes(`${file},`))).toEqual([]);
  });

  it.each(forbidden)('%s may not import %s', (file) => {
    expect(refused.filter((line) => line.includes(`${file},`))).toHaveLength(2);
  });
});
