import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { readFile, realpath, stat } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import { writeAtomically } from './atomic-write.js';

/** A file that was changed so few milliseconds ago may be changed again without a trace in its times. */
const SETTLED_MS = 2_000;

const Remembered = z.object({ stamp: z.string(), sha256: z.string().regex(/^[0-9a-f]{64}$/) });

/** What a file holds. */
export interface FileHash {
  readonly sha256: string;
  /** Size in bytes. */
  readonly bytes: number;
}

/**
 * The sha256 of a file. Remembered in `XDG_CACHE_HOME/splitlearn/hashes` (default `~/.cache`) by the file's size, times
 * and inode, so that a large model is not read twice at each start.
 */
export async function hashFile(path: string, environment: NodeJS.ProcessEnv, signal?: AbortSignal): Promise<FileHash> {
  const target = await realpath(path);
  const before = await stampOf(target);
  const memory = join(memoryFolder(environment), createHash('sha256').update(target).digest('hex'));
  const remembered = await recall(memory);
  if (remembered?.stamp === before.stamp) return { sha256: remembered.sha256, bytes: before.bytes };
  const hash = createHash('sha256');
  for await (const piece of createReadStream(target, { ...(signal && { signal }) })) hash.update(piece);
  const sha256 = hash.digest('hex');
  const after = await stampOf(target);
  if (after.stamp === before.stamp && Date.now() - after.changedMs > SETTLED_MS) {
    // To remember only saves time: a folder that cannot be written to is no reason to fail.
    await writeAtomically(memory, JSON.stringify({ stamp: after.stamp, sha256 })).catch(() => {});
  }
  return { sha256, bytes: after.bytes };
}

/** One sha256 for many files: that of what `sha256sum` prints for them, sorted by path. */
export function digestOf(files: Readonly<Record<string, { readonly sha256: string }>>): string {
  const hash = createHash('sha256');
  for (const path of Object.keys(files).sort()) hash.update(`${files[path]?.sha256}  ${path}\n`);
  return hash.digest('hex');
}

async function stampOf(path: string): Promise<{ stamp: string; bytes: number; changedMs: number }> {
  const { size, mtimeNs, ctimeNs, ino, dev } = await stat(path, { bigint: true });
  const stamp = [size, mtimeNs, ctimeNs, ino, dev].join(' ');
  return { stamp, bytes: Number(size), changedMs: Number(ctimeNs / 1_000_000n) };
}

async function recall(memory: string): Promise<z.output<typeof Remembered> | undefined> {
  try {
    return Remembered.parse(JSON.parse(await readFile(memory, 'utf8')));
  } catch {
    return undefined;
  }
}

function memoryFolder(environment: NodeJS.ProcessEnv): string {
  const caches = environment.XDG_CACHE_HOME || join(environment.HOME || homedir(), '.cache');
  return join(caches, 'splitlearn', 'hashes');
}
