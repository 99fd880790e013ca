import { Registry, type RegistryContentType } from 'prom-client';

/** A registry of either of the formats that there are. */
export type AnyRegistry = Registry<RegistryContentType>;

export function createRegistry(contentType: RegistryContentType): AnyRegistry {
  const registry: AnyRegistry = new Registry();
  registry.setContentType(contentType);
  return registry;
}
