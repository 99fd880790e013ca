import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { ManagerError } from '../../errors.js';
import { pathOf } from '../local.js';

/** Where the hub is, who asks, and where its files are kept. */
export interface HubSettings {
  /** The hub's address, without a `/` at its end. Default `https://huggingface.co`. */
  readonly endpoint: string;
  /** Absolute path of the folder with a folder for each repository. Default `~/.cache/huggingface/hub`. */
  readonly cacheFolder: string;
  /** Proves who asks. Goes to the endpoint alone, and into no message. */
  readonly token?: string;
  /** Nothing is asked of the hub. Default false. */
  readonly offline: boolean;
}

/**
 * Reads the same variables as Python's huggingface_hub, so that both use one cache and one login: `HF_ENDPOINT`,
 * `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH` (default `token` in `HF_HOME`) and
 * `HF_HUB_OFFLINE`.
 *
 * @throws ManagerError `INVALID_CONFIG` for an endpoint that is no address, or a token that cannot be one.
 */
export async function readHubSettings(environment: NodeJS.ProcessEnv): Promise<HubSettings> {
  const home = environment.HOME || homedir();
  const caches = environment.XDG_CACHE_HOME || join(home, '.cache');
  const hubHome = pathOf(environment.HF_HOME || join(caches, 'huggingface'), home);
  const cache = environment.HF_HUB_CACHE || environment.HUGGINGFACE_HUB_CACHE || join(hubHome, 'hub');
  const tokenFile = pathOf(environment.HF_TOKEN_PATH || join(hubHome, 'token'), home);
  const written = environment.HF_TOKEN || environment.HUGGING_FACE_HUB_TOKEN;
  const token = (written ?? (await readFile(tokenFile, 'utf8').catch(() => ''))).trim();
  // A header that cannot be sent would be quoted by the error, with the token in it.
  if (!/^[\x21-\x7e]*$/.test(token)) {
    const where = written === undefined ? `the file ${tokenFile}` : 'HF_TOKEN';
    throw new ManagerError('INVALID_CONFIG', `${where} holds characters that no token has; write it once more`);
  }
  return {
    endpoint: readEndpoint(environment.HF_ENDPOINT),
    cacheFolder: pathOf(cache, home),
    ...(token !== '' && { token }),
    offline: /^(1|on|yes|true)$/i.test(environment.HF_HUB_OFFLINE ?? ''),
  };
}

function readEndpoint(value: string | undefined): string {
  const written = value || 'https://huggingface.co';
  const url = URL.canParse(written) ? new URL(written) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw new ManagerError(
      'INVALID_CONFIG',
      "HF_ENDPOINT must be an address such as 'https://huggingface.co', without a user or a query in it",
    );
  }
  return url.href.replace(/\/+$/, '');
}
