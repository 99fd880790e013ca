import { createModelRuntime } from '../runtime/model-runtime.js';
import type { HostOptions, ModelHost } from './model-host.js';

/** Runs a model in a thread of this process. */
export async function startThreadHost({ maxMessageLength: _, ...options }: HostOptions): Promise<ModelHost> {
  const before = process.memoryUsage().rss;
  const runtime = createModelRuntime(options);
  await runtime.setup?.();
  const [info] = (await runtime.info?.())?.models ?? [];
  return {
    computeFn: runtime,
    info: { ...info },
    pid: process.pid,
    // A thread that dies is replaced by the runtime itself; a native crash takes this process along.
    died: new Promise(() => {}),
    // Threads share their process's memory, so growth since before the load is the closest that can be said.
    memoryBytes: async () => Math.max(0, process.memoryUsage().rss - before),
    stop: async () => runtime.teardown?.(),
  };
}
