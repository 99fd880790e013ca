import type { Logger } from '@splitlearn/comm';
import type { ModelConfig } from '../models/model-config.js';
import { AsyncManagedServer } from '../server/async-managed-server.js';
import type { ServerConfig } from '../server/server-config.js';

export interface ManagedServerOptions extends ServerConfig {
  /** Told of crashes and unexpected errors. Default: `console`. */
  readonly logger?: Logger;
}

/**
 * A server for one model or some, in one line.
 *
 * @param model - A catalogue name, the path of an ONNX file or of a model's folder, a `ModelConfig`, or an array of
 * these (empty: none yet).
 *
 * @example
 * const server = new ManagedServer('tiny-gpt2', { port: 50051 });
 * await server.start();
 */
export class ManagedServer extends AsyncManagedServer {
  constructor(
    model: string | ModelConfig | readonly (string | ModelConfig)[],
    { logger = console, ...config }: ManagedServerOptions = {},
  ) {
    super({ config, models: [model].flat() as (string | ModelConfig)[], logger });
  }
}
