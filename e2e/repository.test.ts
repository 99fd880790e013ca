import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

/** The lines of all text files of the repository that match, new files included, ignored ones not. */
function grep(pattern: string): string[] {
  try {
    return execFileSync('git', ['grep', '--untracked', '-InE', pattern], { cwd: root, encoding: 'utf8' }).split('\n');
  } catch (error) {
    if ((error as { status?: number }).status === 1) return []; // nothing found
    throw error;
  }
}

it('no file names a folder of the machine it was written on', () => {
  expect(grep('(^|[^[:alnum:]_.-])(/(work|root|home|Users)/|[A-Z]:\\\\Users)')).toEqual([]);
});

it('no file names the package registry it was installed from', () => {
  expect(grep('registry\\.npmjs|registry\\.yarnpkg|npm\\.pkg\\.github|localhost:487[3]')).toEqual([]);
});

it('the lock file holds hashes, and no address to download from', () => {
  const lockFile = readFileSync(join(root, 'pnpm-lock.yaml'), 'utf8');
  expect(lockFile).toMatch(/integrity: sha512-/);
  expect(lockFile).not.toMatch(/:\/\/|tarball:/);
});

it.each(['splitlearn-comm', 'splitlearn-manager'])('%s is published with the license', (folder) => {
  expect(readFileSync(join(root, 'packages', folder, 'LICENSE'), 'utf8')).toBe(
    readFileSync(join(root, 'LICENSE'), 'utf8'),
  );
});
