import { type ChildProcess, fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  type CallContext,
  CommError,
  type ComputeFunction,
  type ComputeRequest,
  errorFromPlain,
  GRPCComputeClient,
  type Logger,
  RemoteComputeFunction,
} from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import { type HostOptions, type ModelHost, unloaded } from './model-host.js';
import { OutputTail } from './output-tail.js';
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
 * @param signal - Gives up the start.
 * @throws ManagerError what the engine says, or `MODEL_LOAD_FAILED` when the process ends while it loads; the signal's
 * reason when it was given up.
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
  #client: GRPCComputeClient | undefined;
  #residentBytes = 0;
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
      execArgv: [],
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
  }

  async start(): Promise<ModelHost> {
    this.#send({ type: 'start', options: this.#options, folder: this.#folder });
    const answer = await this.#nextMessage();
    if (answer?.type === 'failed') throw errorFromPlain(answer.error);
    if (answer?.type !== 'ready') throw this.#failedToLoad();
    const { maxMessageLength } = this.#options;
    this.#client = new GRPCComputeClient(socketAddress(this.#folder), { maxMessageLength });
    const ended = this.#exited.then(() => Promise.reject(this.#failedToLoad()));
    await Promise.race([this.#client.connect(), ended]);
    return {
      computeFn: this.#withCrashesExplained(new RemoteComputeFunction(this.#client)),
      info: answer.info,
      pid: this.#child.pid as number,
      died: this.#exited.then(() => (this.#stopping ? new Promise(() => {}) : this.#crashed())),
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
  #withCrashesExplained(remote: ComputeFunction): ComputeFunction {
    const assertAlive = () => {
      if (this.#ended) throw this.#crashed();
    };
    const explain = async (error: unknown): Promise<unknown> => {
      if (!(error instanceof CommError) || error.code !== 'UNAVAILABLE') return error;
      if (this.#stopping) return this.#crashed();
      if (error.reason !== undefined && !LOST.has(error.reason)) return error;
      // The connection is lost an instant before the exit is known. If no exit follows, it is what it says.
      await Promise.race([this.#exited, delay(EXIT_NOTICE_MS, undefined, { ref: false })]);
      return this.#ended ? this.#crashed() : error;
    };
    return {
      compute: async (request: ComputeRequest, context: CallContext) => {
        assertAlive();
        try {
          return await remote.compute(request, context);
        } catch (error) {
          throw await explain(error);
        }
      },
      stream: async function* (requests: AsyncIterable<ComputeRequest>, context: CallContext) {
        assertAlive();
        try {
          yield* remote.stream?.(requests, context) ?? [];
        } catch (error) {
          throw await explain(error);
        }
      },
    };
  }

  #failedToLoad(): ManagerError {
    return new ManagerError('MODEL_LOAD_FAILED', `${this.#ending()} while it was loaded`);
  }

  #crashed(): ManagerError {
    if (this.#stopping) return unloaded(this.#options.modelId);
    return new ManagerError('MODEL_CRASHED', `${this.#ending()}; the next request gets a new process, so try again`);
  }

  #ending(): string {
    const process = `the process of model '${this.#options.modelId}'`;
    if (this.#startError) return `${process} could not be started (${this.#startError.message})`;
    const { exitCode, signalCode } = this.#child;
    const how = signalCode ? `was ended by ${signalCode}` : `ended with exit code ${exitCode}`;
    return `${process} ${how}${this.#output.asClause()}`;
  }

  async #memoryBytes(): Promise<number> {
    this.#send({ type: 'memory' });
    const answer = await Promise.race([this.#nextMessage(), delay(ANSWER_MS, undefined, { ref: false })]);
    if (answer?.type === 'memory') this.#residentBytes = answer.residentBytes;
    return this.#ended ? 0 : this.#residentBytes;
  }

  /** The runner's next message; `undefined` when it ends first. */
  async #nextMessage(): Promise<FromRunner | undefined> {
    const message = new Promise<FromRunner>((resolve) => {
      this.#child.once('message', (first) => resolve(first as FromRunner));
    });
    return Promise.race([message, this.#exited.then(() => undefined)]);
  }

  #send(message: ToRunner): void {
    // A runner that is gone already is noticed by its exit, not here.
    if (this.#child.connected) this.#child.send(message, () => {});
  }
}
