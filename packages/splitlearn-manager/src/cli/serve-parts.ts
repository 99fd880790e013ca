import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { ConfigurationReloader } from '../configuration/configuration-reloader.js';
import { AdminConfig } from '../configuration/connection-config.js';
import { reloadTarget } from '../configuration/reload-target.js';
import { type Configuration, resolveConfiguration } from '../configuration/resolve.js';
import { handleSignals } from '../configuration/signals.js';
import { createLogger, type StructuredLogger } from '../logging/logger.js';
import type { ManagedModelInfo } from '../models/model-info.js';
import { AsyncManagedServer } from '../server/async-managed-server.js';
import type { Cli } from './cli.js';
import type { LoadingOptions } from './cli-parts.js';
import { EXIT } from './exit-codes.js';
import { CliError } from './failures.js';

// The one place where the command line and the parts of a server meet.

/** What was said to `serve`. */
export interface ServeFlags {
  readonly models: readonly string[];
  readonly config?: string;
  readonly host?: string;
  readonly port?: number;
  /** False turns the admin server off. */
  readonly admin?: boolean;
  readonly adminHost?: string;
  readonly adminPort?: number;
  readonly maxModels?: number;
  readonly logLevel?: string;
  /** How long requests may take when the server stops, in milliseconds. */
  readonly graceMs?: number;
}

/** A server that listens. */
export interface ServedServer {
  readonly host: string;
  readonly port: number;
  /** The address of the admin server, such as `http://127.0.0.1:50052`, where there is one. */
  readonly admin?: string;
  /** Whether the admin server lets anything be changed. */
  readonly adminToken: boolean;
  readonly configFile?: string;
  readonly models: readonly ManagedModelInfo[];
  /** Resolves with the exit code when a signal has ended the server. */
  readonly ended: Promise<number>;
}

/** What is served where nothing is said. */
const EMBEDDED = 'tiny-gpt2';
/** The configuration file that is taken where none is named, and no model. */
const DEFAULT_FILE = 'splitlearn.yaml';
/** Variables of the commands that talk to a server: they mean nothing to the server itself. */
const CLIENT_VARIABLES = ['SPLITLEARN_ADMIN'];

/** Starts a server as a file, the environment and the flags say, and has it heed the signals of the system. */
export async function startServer(flags: ServeFlags, cli: Cli, options: LoadingOptions): Promise<ServedServer> {
  const { environment } = cli;
  const read = () => readConfiguration(flags, environment.env);
  const configuration = await read();
  const logger = serverLogger(configuration.config, cli);
  for (const warning of configuration.warnings) logger.warn(warning);
  const { config, models, file } = configuration;

  const reload = () => reloader.reload();
  const server = new AsyncManagedServer({ config, models, logger, reload });
  const target = reloadTarget(server.modelManager, server.router);
  const reloader = new ConfigurationReloader({ serves: configuration, read, target, logger });
  server.modelManager.on('download', options.onDownload);
  let exit!: (code: number) => void;
  const ended = new Promise<number>((resolve) => (exit = resolve));
  let signalled = false;
  const listeners = new Map<unknown, () => void>();
  const forget = handleSignals({
    async reload() {
      const { changes } = await reload();
      logger.info(changes.length > 0 ? `reloaded: ${changes.join('; ')}` : 'reloaded: nothing has changed');
    },
    drain() {
      signalled = true;
      return server.stop(flags.graceMs === undefined ? {} : { graceMs: flags.graceMs });
    },
    logger,
    process: {
      on: (signal, listener) => {
        const name = signal as 'SIGINT' | 'SIGTERM' | 'SIGHUP';
        return listeners.set(
          listener,
          environment.onSignal(name, () => listener(signal)),
        );
      },
      off: (_, listener) => listeners.get(listener)?.(),
      exit,
    },
  });
  try {
    const port = await server.start();
    const { adminPort } = server.getStatus();
    return {
      ...{ host: config.host, port, ended, models: server.modelManager.listModels() },
      adminToken: config.admin?.token !== undefined,
      ...(config.admin && adminPort !== undefined && { admin: `http://${hostInUrl(config.admin.host)}:${adminPort}` }),
      ...(file !== undefined && { configFile: file }),
    };
  } catch (error) {
    forget();
    await server.stop({ graceMs: 0 });
    throw signalled ? new CliError(EXIT.INTERRUPTED, 'INTERRUPTED', 'interrupted while it was starting') : error;
  }
}

/** What is wrong with a configuration file, in words; nothing where all is well. */
export async function checkConfiguration(file: string, { environment }: Cli): Promise<string | undefined> {
  return resolveConfiguration({ file, env: environment.env, otherVariables: CLIENT_VARIABLES }).then(
    () => undefined,
    (error: Error) => error.message,
  );
}

/** Lines of JSON for machines; for a person at a terminal what happened, and when. */
function serverLogger({ logLevel, admin, auth }: Configuration['config'], { environment, err }: Cli): StructuredLogger {
  const forPeople = (line: string) => {
    const { level, time, msg } = JSON.parse(line) as { level: string; time: string; msg: string };
    const paint = level === 'error' || level === 'fatal' ? err.style.red : level === 'warn' ? err.style.yellow : String;
    err.line(`${err.style.dim(new Date(time).toTimeString().slice(0, 8))} ${paint(msg)}`);
  };
  return createLogger({
    level: logLevel,
    destination: { write: err.isTerminal ? forPeople : (line) => environment.stderr.write(line) },
    secrets: [...(auth?.tokens ?? []), ...(admin?.token === undefined ? [] : [admin.token])],
  });
}

/** The admin server is on, for this machine only and without a token for reading only, unless something says otherwise. */
async function readConfiguration(flags: ServeFlags, env: NodeJS.ProcessEnv): Promise<Configuration> {
  const { models, host, port, maxModels, logLevel, admin = true, adminHost, adminPort } = flags;
  const file = flags.config ?? (env.SPLITLEARN_CONFIG || (models.length === 0 ? fileInFolder() : undefined));
  const served = models.length > 0 ? models : file === undefined ? [EMBEDDED] : undefined;
  const configuration = await resolveConfiguration({
    ...(file !== undefined && { file }),
    env,
    flags: { host, port, maxModels, logLevel, models: served, admin: { host: adminHost, port: adminPort } },
    otherVariables: CLIENT_VARIABLES,
  });
  const { admin: configured, ...config } = configuration.config;
  return { ...configuration, config: { ...config, ...(admin && { admin: configured ?? AdminConfig.parse({}) }) } };
}

function hostInUrl(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}

function fileInFolder(): string | undefined {
  return existsSync(resolve(DEFAULT_FILE)) ? DEFAULT_FILE : undefined;
}
