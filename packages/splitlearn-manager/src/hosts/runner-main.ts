import { rmSync } from 'node:fs';
import { AsyncGRPCComputeServer, errorToPlain } from '@splitlearn/comm';
import { createModelRuntime } from '../runtime/model-runtime.js';
import { type FromRunner, socketAddress, type ToRunner } from './runner-messages.js';

// The entry of a model's own process: serves one model on a unix socket until it is told to stop, or its parent is
// gone.

let server: AsyncGRPCComputeServer | undefined;
let folder: string | undefined;

process.on('message', (message: ToRunner) => void receive(message));
process.on('disconnect', orphaned);
// Its parent ends it. Ctrl-C and service managers signal both, and the parent may want to finish requests first.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

async function receive(message: ToRunner): Promise<void> {
  switch (message.type) {
    case 'start':
      return start(message);
    case 'memory':
      return send({ type: 'memory', residentBytes: process.memoryUsage.rss() });
    case 'stop':
      await server?.stop({ graceMs: 0 });
      return process.exit();
  }
}

async function start(message: ToRunner & { type: 'start' }): Promise<void> {
  try {
    const { maxMessageLength, maxMemoryBytes: _, ...runtimeOptions } = message.options;
    folder = message.folder;
    const runtime = createModelRuntime(runtimeOptions);
    const address = socketAddress(folder);
    server = new AsyncGRPCComputeServer({ computeFn: runtime, address, maxMessageLength, standardServices: false });
    await server.start();
    const [info] = (await runtime.info?.())?.models ?? [];
    send({ type: 'ready', info: { ...info } });
  } catch (error) {
    send({ type: 'failed', error: errorToPlain(error) });
  }
}

/** Nobody waits for what is computed any more; `process.exit()` would, where it is computed in native code. */
function orphaned(): void {
  if (folder) rmSync(folder, { recursive: true, force: true });
  process.kill(process.pid, 'SIGKILL');
}

function send(message: FromRunner): void {
  process.send?.(message);
}
