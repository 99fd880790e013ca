import { AsyncGRPCComputeServer, errorToPlain } from '@splitlearn/comm';
import { createModelRuntime } from '../runtime/model-runtime.js';
import type { FromRunner, ToRunner } from './runner-messages.js';

// The entry of a model's own process: serves one model on a unix socket until it is told to stop, or its parent is gone.

let server: AsyncGRPCComputeServer | undefined;

process.on('message', (message: ToRunner) => void receive(message));
process.on('disconnect', () => process.exit());

async function receive(message: ToRunner): Promise<void> {
  switch (message.type) {
    case 'start':
      return start(message);
    case 'memory':
      return send({ type: 'memory', residentBytes: process.memoryUsage.rss() });
    case 'stop':
      await server?.stop({ graceMs: message.graceMs });
      return process.exit();
  }
}

async function start({ options, address }: ToRunner & { type: 'start' }): Promise<void> {
  try {
    const { maxMessageLength, ...runtimeOptions } = options;
    const runtime = createModelRuntime(runtimeOptions);
    server = new AsyncGRPCComputeServer({ computeFn: runtime, address, maxMessageLength });
    await server.start();
    const [info] = (await runtime.info?.())?.models ?? [];
    send({ type: 'ready', info: { ...info } });
  } catch (error) {
    send({ type: 'failed', error: errorToPlain(error) });
  }
}

function send(message: FromRunner): void {
  process.send?.(message);
}
