import type { AdmissionPlan } from '../models/admission.js';
import type { ModelConfig } from '../models/model-config.js';
import type { ResourceProbes } from '../resources/probes.js';
import type { DownloadProgress } from '../sources/hub/progress.js';
import type { LocatedModel } from '../sources/local.js';
import type { Cli } from './cli.js';
import type { ModelSession } from './model-session.js';
import type { ServedServer, ServeFlags } from './serve-parts.js';

/** What is said while a model is found and loaded. */
export interface LoadingOptions {
  readonly signal: AbortSignal;
  readonly onDownload: (progress: DownloadProgress) => void;
  /** Asks nothing of the hub: what is not here is not found. Default false. */
  readonly offline?: boolean;
}

/** What the rest of the package does for the commands: loaded when it is called, and something else in tests. */
export interface CliParts {
  /** Finds a model's files, and downloads those that are not here. */
  locate(config: ModelConfig, cli: Cli, options: LoadingOptions): Promise<LocatedModel>;
  /** Loads a model in this program, or reaches it on a server where an address is given. */
  openModel(config: ModelConfig, address: string | undefined, cli: Cli, options: LoadingOptions): Promise<ModelSession>;
  /** The same over gRPC in any case: what is here is served on a port of this machine. For measurements. */
  openBenchTarget(
    config: ModelConfig | undefined,
    address: string | undefined,
    cli: Cli,
    options: LoadingOptions,
  ): Promise<ModelSession>;
  /** What loading a model would do on this machine. */
  plan(config: ModelConfig, cli: Cli, options: LoadingOptions): Promise<AdmissionPlan>;
  /** A server that listens. */
  serve(flags: ServeFlags, cli: Cli, options: LoadingOptions): Promise<ServedServer>;
  /** What is wrong with a configuration file, in words; nothing where all is well. */
  checkConfiguration(path: string, cli: Cli): Promise<string | undefined>;
  /** This machine. */
  probes(): Promise<ResourceProbes>;
}

/** The real ones. */
export const packageParts: CliParts = {
  async locate(config, { environment }, { signal, onDownload, offline = false }) {
    const [{ locateModel }, { parseModelConfig }, { systemRuntime }] = await Promise.all([
      import('../sources/locate.js'),
      import('../models/model-config.js'),
      import('../sources/hub/runtime.js'),
    ]);
    const env = offline ? { ...environment.env, HF_HUB_OFFLINE: '1' } : environment.env;
    const options = { signal, onProgress: onDownload, environment: env };
    return locateModel(parseModelConfig(config), options, { ...systemRuntime, fetch: environment.fetch });
  },
  async openModel(config, address, cli, options) {
    const { openAt, openHere } = await import('./model-session.js');
    return address === undefined ? openHere(config, cli, options) : openAt(address, config.source, options);
  },
  async openBenchTarget(config, address, cli, options) {
    const { openAt, openServedHere } = await import('./model-session.js');
    if (address !== undefined) return openAt(address, config?.source, options);
    return openServedHere(config as ModelConfig, cli, options);
  },
  async plan(config, cli, options) {
    const { AsyncModelManager } = await import('../models/async-model-manager.js');
    const manager = new AsyncModelManager(
      { logger: cli.logger },
      { locateModel: (resolved) => packageParts.locate(resolved, cli, options) },
    );
    try {
      return await manager.plan(config);
    } finally {
      await manager.shutdown({ graceMs: 0 });
    }
  },
  async serve(flags, cli, options) {
    const { startServer } = await import('./serve-parts.js');
    return startServer(flags, cli, options);
  },
  async checkConfiguration(path, cli) {
    const { checkConfiguration } = await import('./serve-parts.js');
    return checkConfiguration(path, cli);
  },
  async probes() {
    const { machineProbes } = await import('../resources/probes.js');
    return machineProbes;
  },
};
