import { randomUUID } from 'node:crypto';
import { mkdir, open, readFile, readlink, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname } from 'node:path';
import { ManagerError } from '../errors.js';
import { type Clock, sleep, systemClock } from './clock.js';

/** How often a waiting process looks whether the lock is free, in milliseconds. */
const POLL_MS = 100;
/** How often the holder shows that it is alive, in milliseconds. */
const HEARTBEAT_MS = 5_000;
/** A holder that has not shown that for so many milliseconds is taken for dead. */
const STALE_MS = 60_000;

export interface LockOptions {
  readonly signal?: AbortSignal | undefined;
  readonly clock?: Clock;
}

/**
 * Runs something while no other process of those that use the same lock file does.
 *
 * Node has no locks that end with their process, so a file stands for it, which its holder touches now and then. One
 * whose process has ended, on this machine, is taken over at once; one from elsewhere, after a minute of silence by the
 * waiting process's own clock: those of two machines need not agree.
 *
 * @param run gets a signal that also tells when the lock was lost, because this process was stopped for too long.
 */
export async function withLock<T>(
  path: string,
  { signal, clock = systemClock }: LockOptions,
  run: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const token = await acquire(path, clock, signal);
  const lost = new AbortController();
  let cancelTimer = () => {};
  const beat = async () => {
    if ((await content(path)) !== token) {
      const message = `the lock ${path} was taken over while this process was stopped; load the model once more`;
      lost.abort(new ManagerError('SOURCE_UNAVAILABLE', message));
      return;
    }
    const now = new Date();
    await utimes(path, now, now).catch(() => {});
    schedule();
  };
  let released = false;
  const schedule = () => {
    if (!released) cancelTimer = clock.after(HEARTBEAT_MS, () => void beat());
  };
  schedule();
  try {
    return await run(signal ? AbortSignal.any([signal, lost.signal]) : lost.signal);
  } finally {
    released = true;
    cancelTimer();
    if ((await content(path)) === token) await rm(path, { force: true });
  }
}

async function acquire(path: string, clock: Clock, signal: AbortSignal | undefined): Promise<string> {
  const host = await thisMachine();
  const token = JSON.stringify({ pid: process.pid, host, id: randomUUID() });
  let seen = '';
  let seenSinceMs = clock.now();
  for (;;) {
    signal?.throwIfAborted();
    if (await create(path, token)) return token;
    const holder = await content(path);
    const looks = `${holder} ${(await stat(path).catch(() => undefined))?.mtimeMs}`;
    if (looks !== seen) {
      seen = looks;
      seenSinceMs = clock.now();
    }
    if (holder === undefined) continue; // released in between
    if (hasEnded(holder, host) || clock.now() - seenSinceMs > STALE_MS) await takeAway(path, holder);
    else await sleep(clock, POLL_MS, signal);
  }
}

async function create(path: string, token: string): Promise<boolean> {
  await mkdir(dirname(path), { recursive: true });
  try {
    const handle = await open(path, 'wx');
    await handle.writeFile(token).finally(() => handle.close());
    return true;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    // Windows says EPERM of a file that is being deleted.
    if (code === 'EEXIST' || (code === 'EPERM' && process.platform === 'win32')) return false;
    throw error;
  }
}

/** Deletes a dead holder's lock, but never the one that another process has made in its place meanwhile. */
async function takeAway(path: string, holder: string): Promise<void> {
  const guard = `${path}.takeover`;
  if (!(await create(guard, ''))) {
    // Whoever made it needs a moment only; an old one was left by a process that ended right here.
    const made = await stat(guard).catch(() => undefined);
    if (made && Date.now() - made.mtimeMs > STALE_MS) await rm(guard, { force: true });
    return;
  }
  try {
    if ((await content(path)) === holder) await rm(path, { force: true });
  } finally {
    await rm(guard, { force: true });
  }
}

function hasEnded(holder: string, host: string): boolean {
  try {
    const owner: unknown = JSON.parse(holder);
    if (typeof owner !== 'object' || owner === null || !('pid' in owner) || !('host' in owner)) return false;
    if (owner.host !== host || typeof owner.pid !== 'number') return false;
    process.kill(owner.pid, 0);
    return false;
  } catch (error) {
    // No JSON yet: its holder is about to write it.
    return error instanceof Error && 'code' in error && error.code === 'ESRCH';
  }
}

/** Process ids mean something within one machine, and on Linux within one container, which may share its name. */
async function thisMachine(): Promise<string> {
  return `${hostname()} ${await readlink('/proc/self/ns/pid').catch(() => '')}`;
}

function content(path: string): Promise<string | undefined> {
  return readFile(path, 'utf8').catch(() => undefined);
}
