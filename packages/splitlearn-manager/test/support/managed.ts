import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CommError, type GRPCComputeClientOptions, type Logger, type Tensors, tensor } from '@splitlearn/comm';
import {
  ManagedClient,
  ManagedServer,
  type ManagedServerOptions,
  ManagerError,
  type ModelConfig,
} from '@splitlearn/manager';
import { afterAll, beforeAll, expect } from 'vitest';

const PRELOAD = new URL('./runner-preload.mjs', import.meta.url).href;

/** The path of an ONNX file of the tests. */
export function onnxFile(name: string): string {
  return fileURLToPath(new URL(`../fixtures/${name}.onnx`, import.meta.url));
}

/** Gives back what it is given, as fast as anything can; its model is called `identity` unless told otherwise. */
export const identity: ModelConfig = { modelId: 'identity', source: onnxFile('onnx/identity-float32') };
export const someTensors: Tensors = { x: tensor([1, 2, 3]) };

/** Counts to `n` in native code, which nothing but the end of its process can stop: some million a second. */
export const loop: ModelConfig = { modelId: 'loop', source: onnxFile('loop') };
export function countTo(n: number): Tensors {
  return { n: tensor(BigInt64Array.of(BigInt(n)), []) };
}
/** Takes days. */
export const forever = countTo(1e12);

/** Keeps what is logged, and tells when something is. */
export class Log implements Logger {
  readonly lines: string[] = [];
  readonly #waiting = new Set<() => void>();

  warn(message: string): void {
    this.lines.push(message);
    for (const look of [...this.#waiting]) look();
  }

  error(message: string): void {
    this.warn(`error: ${message}`);
  }

  /** Resolves with the first line that has a text in it, whether it is there already or still comes. */
  until(text: string): Promise<string> {
    return new Promise((resolve) => {
      const look = () => {
        const found = this.lines.find((line) => line.includes(text));
        if (found === undefined) return;
        this.#waiting.delete(look);
        resolve(found);
      };
      this.#waiting.add(look);
      look();
    });
  }
}

/** A server with models and a client of it. */
export interface Served extends AsyncDisposable {
  readonly server: ManagedServer;
  readonly client: ManagedClient;
  readonly port: number;
  readonly log: Log;
  close(): Promise<void>;
}

type ServeOptions = Omit<ManagedServerOptions, 'logger'> & { readonly client?: GRPCComputeClientOptions };

/** Serves models on a free port. The threads of those in processes of their own tell what they do: see the preload. */
export async function serve(
  models: string | ModelConfig | readonly (string | ModelConfig)[],
  { client: clientOptions, ...options }: ServeOptions = {},
): Promise<Served> {
  const log = new Log();
  const server = new ManagedServer(models, { port: 0, ...options, logger: log });
  const port = await server.start();
  const client = new ManagedClient(`127.0.0.1:${port}`, clientOptions);
  const close = async () => {
    await client.close();
    await server.stop({ graceMs: 0 });
  };
  return { server, client, port, log, close, [Symbol.asyncDispose]: close };
}

/**
 * For a whole test file: the processes of models say what they do, and what they leave in the folder for temporary
 * files is seen. When the file is done there must be no process and no temporary file of it.
 */
export function watchProcesses(): void {
  const { NODE_OPTIONS, TMPDIR, ORT_DISABLE_TELEMETRY } = process.env;
  const before = { NODE_OPTIONS, TMPDIR, ORT_DISABLE_TELEMETRY };
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'sl-'));
    process.env.TMPDIR = folder;
    delete process.env.ORT_DISABLE_TELEMETRY; // it leaves files in the folder where nobody turns it off
    process.env.NODE_OPTIONS = `--import=${PRELOAD}`;
  });
  afterAll(() => {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
    const left = { processes: childProcesses(), files: readdirSync(folder) };
    rmSync(folder, { recursive: true });
    expect(left).toEqual({ processes: 0, files: [] });
  });
}

/** Lets processes that are started during some work misbehave; `runner-preload.mjs` knows how. */
export async function withFault<T>(fault: string, work: () => Promise<T>): Promise<T> {
  process.env.RUNNER_FAULT = fault;
  try {
    return await work();
  } finally {
    delete process.env.RUNNER_FAULT;
  }
}

/** How many processes this one has started that have not ended. */
export function childProcesses(): number {
  return process.getActiveResourcesInfo().filter((name) => name === 'ProcessWrap').length;
}

/** What models have in the folder for temporary files. */
export function temporaryFiles(): string[] {
  return readdirSync(tmpdir());
}

/** The process of a model. */
export function pidOf({ server }: Served, modelId: string): number {
  const { pid } = server.modelManager.getModelInfo(modelId);
  return pid ?? expect.fail(`model '${modelId}' has no process`);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  try {
    // One that has ended, but whose end nobody has taken note of, has an entry still: a zombie.
    return !readFileSync(`/proc/${pid}/stat`, 'utf8').includes(') Z ');
  } catch {
    return true;
  }
}

/** What a client's work fails with. */
export async function commFailure(work: Promise<unknown>): Promise<CommError> {
  const error = await thrownBy(work);
  expect(error).toBeInstanceOf(CommError);
  return error as CommError;
}

/** What the work of a manager fails with. */
export async function managerFailure(work: Promise<unknown>): Promise<ManagerError> {
  const error = await thrownBy(work);
  expect(error).toBeInstanceOf(ManagerError);
  return error as ManagerError;
}

async function thrownBy(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => expect.fail('nothing was thrown'),
    (reason) => reason,
  );
}

/** All that is left of a stream. */
export async function readAll<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}
