import type { CliParts } from './cli-parts.js';

/** Where text goes: a terminal, a pipe, a file. */
export interface TextSink {
  write(text: string): unknown;
  /** Whether a person looks at it. */
  readonly isTTY?: boolean | undefined;
  /** Characters in a line of the terminal. */
  readonly columns?: number | undefined;
}

/** All that a command takes from the world, so that tests give it another. */
export interface CliEnvironment {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly stdout: TextSink;
  readonly stderr: TextSink;
  readonly env: NodeJS.ProcessEnv;
  readonly fetch: typeof fetch;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Milliseconds of a clock that never jumps. */
  elapsedMs(): number;
  /** Resolves after so many milliseconds, or as soon as the signal is aborted. */
  wait(milliseconds: number, signal: AbortSignal): Promise<void>;
  /** Has a signal of the system handled until the returned function is called. */
  onSignal(name: 'SIGINT' | 'SIGTERM' | 'SIGHUP', handler: () => void): () => void;
  /** What the package itself does for the commands. */
  readonly parts: CliParts;
}
