// A server with a configuration file that heeds signals: says its port, and what is logged.
//   node configured-server.mjs <splitlearn.yaml>
import { AsyncManagedServer, ModelRouter } from '@splitlearn/manager';
import { ConfigurationReloader } from '../../dist/configuration/configuration-reloader.js';
import { reloadTarget } from '../../dist/configuration/reload-target.js';
import { resolveConfiguration } from '../../dist/configuration/resolve.js';
import { handleSignals } from '../../dist/configuration/signals.js';

const logger = { warn: console.log, error: (message) => console.log(`error: ${message}`) };
const read = () => resolveConfiguration({ file: process.argv[2] });
const configuration = await read();
const server = new AsyncManagedServer({ ...configuration, logger });
const { modelManager } = server;
const target = reloadTarget(modelManager, new ModelRouter({ modelManager }));
const reloader = new ConfigurationReloader({ serves: configuration, read, target, logger });
handleSignals({
  reload: async () => console.log(`changes: ${(await reloader.reload()).changes.join(', ')}`),
  drain: () => server.stop({ graceMs: 20_000 }),
  logger,
});
console.log(`port ${await server.start()}`);
