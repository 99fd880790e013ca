import { fileURLToPath } from 'node:url';

/** Models that have a short name. Those that ship with this package need no download. */
export const CATALOG: Readonly<Record<string, string>> = {
  'tiny-gpt2': fileURLToPath(new URL('../../models/tiny-gpt2', import.meta.url)),
};
