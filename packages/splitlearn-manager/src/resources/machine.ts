import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism, totalmem } from 'node:os';
import { dirname } from 'node:path';

/** The operating system as the probes see it: files, numbers and one program. Tests have one of their own. */
export interface Machine {
  readonly platform: NodeJS.Platform;
  readonly architecture: string;
  readonly pid: number;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** A file's text; `undefined` where it cannot be read. */
  readText(path: string): string | undefined;
  /** As `readText`, for files that take the kernel a while. */
  readTextLater(path: string): Promise<string | undefined>;
  /** The names in a folder; none where it cannot be read. */
  list(path: string): readonly string[];
  /** As `list`, without keeping the event loop. */
  listLater(path: string): Promise<readonly string[]>;
  exists(path: string): boolean;
  /** The folder of `onnxruntime-node`; `undefined` where it is not installed. */
  runtimeFolder(): string | undefined;
  /** What a program writes; `undefined` where there is none, it fails, or takes longer than `timeoutMs`. */
  run(program: string, parameters: readonly string[], timeoutMs: number): Promise<string | undefined>;
  /** In bytes. */
  totalMemoryBytes(): number;
  /** As Node.js has it, in bytes. */
  availableMemoryBytes(): number;
  /** As Node.js has it, in bytes; 0 or an absurd number where there is no container. */
  constrainedMemoryBytes(): number;
  /** Resident memory of this process, in bytes. */
  ownResidentBytes(): number;
  /** Processors that this process may run on. */
  processors(): number;
}

/** The machine that this process runs on. */
export const thisMachine: Machine = {
  platform: process.platform,
  architecture: process.arch,
  pid: process.pid,
  environment: process.env,
  readText: (path) => orElse(() => readFileSync(path, 'utf8'), undefined),
  readTextLater: (path) => readFile(path, 'utf8').catch(() => undefined),
  list: (path) => orElse(() => readdirSync(path), []),
  listLater: (path) => readdir(path).catch(() => []),
  exists: existsSync,
  runtimeFolder() {
    // Found, not loaded: the native library must not come into the server's process.
    const { resolve } = createRequire(import.meta.url);
    return orElse(() => dirname(resolve('onnxruntime-node/package.json')), undefined);
  },
  run(program, parameters, timeoutMs) {
    return new Promise((resolve) => {
      const options = { timeout: timeoutMs, killSignal: 'SIGKILL', windowsHide: true } as const;
      try {
        execFile(program, parameters, options, (error, output) => resolve(error ? undefined : output));
      } catch {
        resolve(undefined); // no process can be started at all
      }
    });
  },
  totalMemoryBytes: totalmem,
  availableMemoryBytes: () => process.availableMemory(),
  constrainedMemoryBytes: () => process.constrainedMemory(),
  ownResidentBytes: () => process.memoryUsage.rss(),
  processors: availableParallelism,
};

function orElse<Value, Other>(read: () => Value, other: Other): Value | Other {
  try {
    return read();
  } catch {
    return other;
  }
}
