import { z } from 'zod';
import { ModelConfig } from '../models/model-config.js';
import { ServerConfig } from '../server/server-config.js';
import { AuthFile, TlsFiles } from './connection-config.js';

/** A model in a list: its configuration, or its source alone. */
export const ModelEntry = z.preprocess((entry) => (typeof entry === 'string' ? { source: entry } : entry), ModelConfig);

/**
 * All that `splitlearn.yaml` (or `.json`) may have in it: the fields of `ServerConfig`, and the models. Files stand where
 * `ServerConfig` has their content.
 */
export const ConfigurationFile = z.strictObject({
  /** Where editors find the JSON schema of the file; nothing else does. */
  $schema: z.string().optional(),
  ...ServerConfig.shape,
  /** TLS. Default: none, all travels in the clear. */
  tls: TlsFiles.optional(),
  /** Who may call. Default: everyone who can reach the server. */
  auth: AuthFile.optional(),
  /** The models to serve. Default: none yet. */
  models: z.array(ModelEntry).default([]),
});

/** A configuration file's content as it is written: whatever has a default may be left out. */
export type ConfigurationFile =
  z.input<typeof ServerConfig> extends infer Server
    ? Omit<Server, 'tls' | 'auth'> & {
        readonly $schema?: string;
        readonly tls?: z.input<typeof TlsFiles>;
        readonly auth?: z.input<typeof AuthFile>;
        readonly models?: readonly (string | ModelConfig)[];
      }
    : never;
