import { type ChildProcess, fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { getHeapStatistics } from 'node:v8';
import { CommError, errorFromPlain, GRPCComputeClient, type Logger, RemoteComputeFunction } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import { residentBytes, watchMemory } from './memory-watch.js';
import { type HostOptions, type ModelHost, unloaded } from './model-host.js';
import { OutputTail } from './output-tail.js';
import { RunnerCalls } from './runner-calls.js';
import { type FromRunner, socketAddress, type ToRunner } from './runner-messages.js';

/** How long after the end of a process the last of its output may take, in milliseconds. */
const LAST_OUTPUT_MS = 100;

/** How long after a lost connection the news of the process's end may take, in milliseconds. */
const EXIT_NOTICE_MS = 500;

/** How long a runner may take to answer or to end, which takes it no time when all is well, in milliseconds. */
const ANSWER_MS = 1_000;

const RUNNER = fileURLToPath(new URL('./runner-main.js', import.meta.url));

/**
 * Runs a model in a process of its own, the runner, which is reached by gRPC on a unix socket. Whatever the runner
 * writes to its standard output and error goes to the logger.
 *
 * A runner that takes more than `maxMemoryBytes` is ended: its calls fail with `MODEL_MEMORY_EXCEEDED`, and `died` says
 * so. One in which a run failed for lack of memory is done with as well, because ONNX Runtime may reserve all there is
 * from then on: `died` resolves with `INSUFFICIENT_MEMORY` at once, so that whoever comes next gets a new process, and
 * the old one ends when it has finished its calls.
 *
 * @param signal - Gives up the start.
 * @throws ManagerError what the engine says, `MODEL_LOAD_FAILED` when the process ends while it loads,
 * `MODEL_MEMORY_EXCEEDED` when it takes too much memory for it; the signal's reason when it was given up.
 */
export async function startProcessHost(options: HostOptions, logger: Logger, signal: AbortSignal): Promise<ModelHost> {
  // A folder that only this user may enter.
  const folder = await mkdtemp(join(tmpdir(), 'splitlearn-'));
  const runner = new Runner(options, folder, logger);
  const giveUp = () => runner.kill();
  signal.addEventListener('abort', giveUp);
  try {
    signal.throwIfAborted();
    return await runner.start();
  } catch (error) {
    await runner.stop();
    throw signal.aborted ? signal.reason : ManagerError.fromCommError(error);
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

/** Reasons by which comm says that the runner is not there, or not any more. */
const LOST = new Set(['NOT_SENT', 'CONNECTION_LOST', 'STALLED']);

class Runner {
  readonly #options: HostOptions;
  readonly #folder: string;
  readonly #child: ChildProcess;
  readonly #output: OutputTail;
  /** Resolves when the process has ended, and what it wrote last has been read. */
  readonly #exited: Promise<void>;
  readonly #cleanedUp: Promise<void>;
  /** Resolves when the process is not to be used any more, although it goes on. */
  readonly #retired: Promise<ManagerError>;
  #retire!: (reason: ManagerError) => void;
  #isRetired = false;
  #calls: RunnerCalls | undefined;
  #client: GRPCComputeClient | undefined;
  #residentBytes = 0;
  /** What the process had in memory when that became too much. */
  #exceededBytes: number | undefined;
  #memoryAnswer: Promise<number | undefined> | undefined;
  #stopping = false;
  #ended = false;
  /** Why the process could not even be started. */
  #startError: Error | undefined;

  constructor(options: HostOptions, folder: string, logger: Logger) {
    this.#options = options;
    this.#folder = folder;
    this.#child = fork(RUNNER, [], {
      serialization: 'advanced',
      // What is meant for this process (--inspect, a test runner's loader) is not meant for the runner.
      execArgv: heapLimit(options.maxMemoryBytes),
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.#output = new OutputTail(this.#child, (line) => logger.warn(`model '${options.modelId}': ${line}`));
    this.#exited = new Promise<void>((resolve) => {
      this.#child.once('close', () => resolve());
      // Its output stays open when it has started processes of its own.
      this.#child.once('exit', () => setTimeout(resolve, LAST_OUTPUT_MS));
      this.#child.once('error', (error) => {
        this.#startError = error;
        resolve();
      });
    }).then(() => {
      this.#ended = true;
    });
    this.#cleanedUp = this.#exited.then(() => this.#cleanUp());
    this.#retired = new Promise((resolve) => (this.#retire = resolve));
    this.#limitMemory();
  }

  async start(): Promise<ModelHost> {
    this.#send({ type: 'start', options: this.#options, folder: this.#folder });
    const answer = await this.#nextMessage('ready', 'failed');
    if (answer?.type === 'failed') throw errorFromPlain(answer.error);
    if (answer?.type !== 'ready') throw this.#failedToLoad();
    const { maxMessageLength } = this.#options;
    this.#client = new GRPCComputeClient(socketAddress(this.#folder), { maxMessageLength });
    const ended = this.#exited.then(() => Promise.reject(this.#failedToLoad()));
    await Promise.race([this.#client.connect(), ended]);
    this.#calls = new RunnerCalls(new RemoteComputeFunction(this.#client), {
      assertAlive: () => {
        if (this.#ended) throw this.#crashed();
      },
      explain: (error) => this.#explain(error),
      ranOutOfMemory: () => this.#replace(),
    });
    const crashed = this.#exited.then(() => (this.#stopping ? new Promise<never>(() => {}) : this.#crashed()));
    return {
      computeFn: this.#calls,
      info: answer.info,
      pid: this.#child.pid as number,
      died: Promise.race([crashed, this.#retired]),
      memoryBytes: () => this.#memoryBytes(),
      stop: () => this.stop(),
    };
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#send({ type: 'stop' });
    // A model that computes in native code cannot be told to stop.
    const timer = setTimeout(() => this.kill(), ANSWER_MS);
    await this.#cleanedUp;
    clearTimeout(timer);
  }

  kill(): void {
    this.#stopping = true;
    this.#child.kill('SIGKILL');
  }

  async #cleanUp(): Promise<void> {
    await this.#client?.close();
    // Where it cannot be removed, it is left to whoever tidies up temporary files.
    await rm(this.#folder, { recursive: true, force: true }).catch(() => {});
  }

  /** To gRPC a runner that dies is a lost connection; to the caller it is a model that crashed. */
  async #explain(error: unknown): Promise<unknown> {
    if (!(error instanceof CommError) || error.code !== 'UNAVAILABLE') return error;
    if (this.#stopping) return this.#crashed();
    if (error.reason !== undefined && !LOST.has(error.reason)) return error;
    // The connection is lost an instant before the exit is known. If no exit follows, it is what it says.
    await Promise.race([this.#exited, delay(EXIT_NOTICE_MS, undefined, { ref: false })]);
    return this.#ended ? this.#crashed() : error;
  }

  #limitMemory(): void {
    const { maxMemoryBytes: limitBytes } = this.#options;
    if (limitBytes === undefined) return;
    const stopWatching = watchMemory({
      limitBytes,
      read: async () => (await residentBytes(this.#child.pid)) ?? this.#askForMemory(),
      onExceeded: (bytes) => {
        if (this.#stopping) return;
        this.#exceededBytes = bytes;
        this.#child.kill('SIGKILL');
      },
    });
    void this.#exited.then(stopWatching);
  }

  /** Has the next request served by another process; this one ends when it has finished what it was given. */
  #replace(): void {
    if (this.#isRetired || this.#stopping) return;
    this.#isRetired = true;
    this.#retire(new ManagerError('INSUFFICIENT_MEMORY', `${this.#process} ran out of memory, and is replaced`));
    this.#calls?.whenIdle(() => void this.stop());
  }

  #failedToLoad(): ManagerError {
    if (this.#exceededBytes !== undefined) return this.#tookTooMuch(this.#exceededBytes, 'to load');
    return new ManagerError('MODEL_LOAD_FAILED', `${this.#ending()} while it was loaded`);
  }

  #crashed(): ManagerError {
    if (this.#exceededBytes !== undefined) return this.#tookTooMuch(this.#exceededBytes, 'for its requests');
    if (this.#isRetired) {
      return new ManagerError('MODEL_DRAINING', `${this.#process} is being replaced by a new one, so try again`);
    }
    if (this.#stopping) return unloaded(this.#options.modelId);
    return new ManagerError('MODEL_CRASHED', `${this.#ending()}; the next request gets a new process, so try again`);
  }

  #tookTooMuch(bytes: number, what: string): ManagerError {
    const { maxMemoryBytes } = this.#options;
    return new ManagerError(
      'MODEL_MEMORY_EXCEEDED',
      `${this.#process} took ${bytes} bytes of memory ${what}, more than its maxMemoryBytes of ${maxMemoryBytes}, and ` +
        'was ended; raise maxMemoryBytes, or give the model less at a time',
    );
  }

  #ending(): string {
    if (this.#startError) return `${this.#process} could not be started (${this.#startError.message})`;
    const { exitCode, signalCode } = this.#child;
    const how = signalCode ? `was ended by ${signalCode}` : `ended with exit code ${exitCode}`;
    return `${this.#process} ${how}${this.#output.asClause()}`;
  }

  get #process(): string {
    return `the process of model '${this.#options.modelId}'`;
  }

  async #memoryBytes(): Promise<number> {
    const bytes = (await residentBytes(this.#child.pid)) ?? (await this.#askForMemory());
    this.#residentBytes = bytes ?? this.#residentBytes;
    return this.#ended ? 0 : this.#residentBytes;
  }

  /** What the runner says that it has in memory, in bytes; `undefined` when it does not answer soon. */
  #askForMemory(): Promise<number | undefined> {
    const ask = async () => {
      this.#send({ type: 'memory' });
      const answer = this.#nextMessage('memory').then((message) => message?.residentBytes);
      return Promise.race([answer, delay(ANSWER_MS, undefined, { ref: false })]);
    };
    this.#memoryAnswer ??= ask().finally(() => (this.#memoryAnswer = undefined));
    return this.#memoryAnswer;
  }

  /** The runner's next message of these types; `undefined` when it ends first. */
  async #nextMessage<Type extends FromRunner['type']>(...types: Type[]) {
    type Wanted = Extract<FromRunner, { type: Type }>;
    const message = new Promise<Wanted>((resolve) => {
      const look = (next: unknown) => {
        if (!types.includes((next as Wanted).type as Type)) return;
        this.#child.off('message', look);
        resolve(next as Wanted);
      };
      this.#child.on('message', look);
    });
    return Promise.race([message, this.#exited.then(() => undefined)]);
  }

  #send(message: ToRunner): void {
    // A runner that is gone already is noticed by its exit, not here.
    if (this.#child.connected) this.#child.send(message, () => {});
  }
}

/**
 * Lets V8 know of the limit: by itself it lets garbage grow to its own limit of some gigabytes before it looks for it
 * in earnest, and a runner would be ended for what nobody needs.
 */
function heapLimit(maxMemoryBytes = Infinity): string[] {
  if (maxMemoryBytes >= getHeapStatistics().heap_size_limit) return [];
  return [`--max-old-space-size=${Math.max(1, Math.floor(maxMemoryBytes / 2 ** 20))}`];
}
