// A script of this folder in a process of its own, which does what it is asked. See `answer` for its side.
import { fork } from 'node:child_process';
import { once } from 'node:events';

const STOP_MS = 5_000;

/**
 * Starts a script and waits until it is ready.
 *
 * @returns `ask(name, ...args)`, which gives what the script's handler of that name gives; `pid`; and `stop()`.
 */
export async function startProcess(script, ...args) {
  const child = fork(
    new URL(script, import.meta.url),
    args.map((arg) => JSON.stringify(arg)),
    {
      serialization: 'advanced',
    },
  );
  const waiting = new Map();
  const exit = once(child, 'exit');
  let asked = 0;
  child.on('message', ({ id, error, result }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(`${script}: ${error}`));
  });
  exit.then(([code, signal]) => {
    for (const { reject } of waiting.values()) reject(new Error(`${script} ended with ${signal ?? code}`));
  });
  const ask = (name, ...given) =>
    new Promise((resolve, reject) => {
      const id = asked++;
      waiting.set(id, { resolve, reject });
      child.send({ id, name, given });
    });
  await ask('ready');
  return {
    pid: child.pid,
    ask,
    async stop() {
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      if (child.connected) child.disconnect();
      await exit;
      clearTimeout(timer);
    },
  };
}

/** The script's arguments, as they were given to `startProcess`. */
export function givenArguments() {
  return process.argv.slice(2).map((arg) => JSON.parse(arg));
}

/** Answers what the script's parent asks, until the parent is gone. */
export function answer({ close, ...handlers }) {
  process.on('message', async ({ id, name, given }) => {
    try {
      const result = name === 'ready' ? undefined : await handlers[name](...given);
      process.send({ id, result });
    } catch (error) {
      process.send({ id, error: `${error?.message ?? error}` });
    }
  });
  process.on('disconnect', async () => {
    await close?.();
    process.exit();
  });
}
