import type { Logger } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { HostOptions, ModelHost } from './model-host.js';
import { startProcessHost } from './process-host.js';
import { startRemoteHost } from './remote-host.js';
import { startThreadHost } from './thread-host.js';

/** How a model is kept apart from the server. */
export type Isolation = 'process' | 'thread' | 'remote';

/** Where a model is to run: here, or where another server has it by the name of `source`. */
type Place = 'process' | 'thread' | { readonly address: string; readonly source: string };

/** Starts a model where it is to run. `signal` gives up the start, where that can be done. */
export type StartHostAt = (
  place: Place,
  options: HostOptions,
  logger: Logger,
  signal: AbortSignal,
) => Promise<ModelHost>;

/** @throws ManagerError whatever goes wrong; `MODEL_LOAD_FAILED` for what no one has foreseen. */
export const startHost: StartHostAt = async (place, options, logger, signal) => {
  try {
    if (place === 'process') return await startProcessHost(options, logger, signal);
    if (place === 'thread') return await startThreadHost(options);
    return await startRemoteHost({ ...options, ...place }, signal);
  } catch (error) {
    const known = ManagerError.fromCommError(error);
    if (known instanceof ManagerError) throw known;
    const message = error instanceof Error ? error.message : String(error);
    const explanation = `model '${options.modelId}' could not be loaded: ${message}`;
    throw new ManagerError('MODEL_LOAD_FAILED', explanation, { cause: error });
  }
};
