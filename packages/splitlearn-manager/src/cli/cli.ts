import type { Logger } from '@splitlearn/comm';
import type { CliEnvironment, TextSink } from './cli-environment.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { CliError } from './failures.js';
import { type Column, formatTable, type Style, styleOf } from './format.js';

/** What is said before a command, for all of them. */
export interface GlobalOptions {
  readonly json?: boolean;
  readonly debug?: boolean;
  /** Commander's name for what `--no-color` turns off. */
  readonly color?: boolean;
}

/** Writes to one of the streams. */
class Printer {
  readonly style: Style;
  readonly #sink: TextSink;

  constructor(sink: TextSink, style: Style) {
    this.#sink = sink;
    this.style = style;
  }

  get isTerminal(): boolean {
    return this.#sink.isTTY === true;
  }

  write(text: string): void {
    this.#sink.write(text);
  }

  line(text = ''): void {
    this.write(`${text}\n`);
  }

  /** One document, for people who look at it too. */
  json(value: unknown): void {
    this.line(JSON.stringify(value, undefined, 2));
  }

  /** One line of a stream of documents (ndjson). */
  jsonLine(value: unknown): void {
    this.line(JSON.stringify(value));
  }

  table<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): void {
    this.write(formatTable(columns, rows, this.style));
  }
}

/** What each command is given: the world, and how to talk to whoever runs it. */
export interface Cli {
  readonly environment: CliEnvironment;
  /** Whether a program reads the output. */
  readonly json: boolean;
  readonly out: Printer;
  /** For what is not the result: progress, hints, errors. */
  readonly err: Printer;
  /** For the parts of the package: warnings of models and servers go to standard error. */
  readonly logger: Logger;
}

export function createCli(environment: CliEnvironment, { json = false, color = true }: GlobalOptions): Cli {
  const printer = (sink: TextSink) => new Printer(sink, styleOf(sink, environment.env, color));
  const out = printer(environment.stdout);
  const err = printer(environment.stderr);
  const logger = {
    warn: (message: string) => err.line(message),
    error: (message: string) => err.line(message),
  };
  return { environment, json, out, err, logger };
}

/** Starts a command with what was said before it. */
export type Start = (work: (cli: Cli) => Promise<ExitCode> | Promise<void>) => Promise<void>;

/** Gives the work a signal that Ctrl-C aborts; the next Ctrl-C ends the program as it always does. */
export async function interruptible<T>(cli: Cli, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = () => {
    ignore();
    controller.abort(new CliError(EXIT.INTERRUPTED, 'INTERRUPTED', 'interrupted'));
  };
  const handled = (['SIGINT', 'SIGTERM'] as const).map((name) => cli.environment.onSignal(name, stop));
  const ignore = () => {
    for (const remove of handled) remove();
  };
  try {
    return await work(controller.signal);
  } catch (error) {
    throw controller.signal.aborted ? controller.signal.reason : error;
  } finally {
    ignore();
  }
}
