// Starts a peer's server and client, each in a process of its own, and lets the client make its calls.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const STOP_MS = 3_000;
const script = (name) => fileURLToPath(new URL(name, import.meta.url));

/** What grpcio.py needs, on Debian and its kin. */
export const INSTALL_PYTHON = 'apt-get install -y python3-grpcio python3-protobuf python3-numpy';
const PYTHONS = process.env.PYTHON ? [process.env.PYTHON] : ['/usr/bin/python3', 'python3'];
const PYTHON_VERSIONS =
  'import sys, grpc, google.protobuf as pb, numpy;' +
  'print(f"Python {sys.version.split()[0]}, grpcio {grpc.__version__}, protobuf {pb.__version__}")';

/** A Python that has what grpcio.py needs: `{ command, versions }`, or undefined. */
export function findPython() {
  for (const command of PYTHONS) {
    const { status, stdout } = spawnSync(command, ['-c', PYTHON_VERSIONS], { encoding: 'utf8' });
    if (status === 0) return { command, versions: stdout.trim() };
  }
}

/**
 * A server and a client that is connected to it.
 *
 * @param variant - See plan.mjs.
 * @param place - `listen`: where the server does; `delayMs`: how far the client is away, in each direction.
 */
export async function startPair({ server, client = server, options = {} }, { listen, delayMs, python }) {
  const started = [];
  const start = async (role, peer, address, peerOptions) => {
    const child = startProcess(peer === 'grpcio' ? [python.command, 'grpcio.py'] : [process.execPath, 'main.mjs'], [
      role,
      peer,
      address,
      JSON.stringify(peerOptions),
    ]);
    started.unshift(child);
    return { child, ...(await child.hear()) };
  };
  const stop = () => Promise.all(started.map((child) => child.stop()));
  try {
    const served = await start('serve', server, listen, options);
    const near = delayMs ? await start('serve', 'relay', served.address, { delayMs }) : served;
    const connected = await start('connect', client, near.address, options);
    return {
      /** Lets the client drive the server: see load.mjs. */
      drive(load) {
        connected.child.say(load);
        return connected.child.hear();
      },
      /** The server's resident memory in bytes, now and at its peak; undefined where there is no /proc. */
      memory: () => memory(served.child.pid),
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function startProcess([command, file], args) {
  const child = spawn(command, [script(file), ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  const exit = once(child, 'exit');
  exit.catch(() => {}); // a command that does not exist
  child.stdin.on('error', () => {}); // it ended by itself, which `hear` says
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    pid: child.pid,
    say: (message) => child.stdin.write(`${JSON.stringify(message)}\n`),
    async hear(timeoutMs = 60_000) {
      const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
      const { value, done } = await lines.next();
      clearTimeout(timer);
      if (done) throw new Error(`'${args.slice(0, 2).join(' ')}' ended, or took more than ${timeoutMs / 1_000} s`);
      const { error, ...message } = JSON.parse(value);
      if (error) throw new Error(error);
      return message;
    },
    async stop() {
      child.stdin.end();
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await exit.catch(() => {});
      clearTimeout(timer);
    },
  };
}

function memory(pid) {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const bytes = (name) => Number(status.match(new RegExp(`${name}:\\s+(\\d+) kB`))[1]) * 1_024;
    return { residentBytes: bytes('VmRSS'), peakBytes: bytes('VmHWM') };
  } catch {
    return undefined;
  }
}
