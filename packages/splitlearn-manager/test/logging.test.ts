// What a server logs in its life, and that nothing of it is lost or told twice.
import { createLogger, type LogLevel, ManagedClient, ManagedServer } from '@splitlearn/manager';
import { expect, it } from 'vitest';
import { commFailure, identity, someTensors, watchProcesses } from './support/managed.js';

watchProcesses();

type Line = Record<string, unknown>;

/** A server that is stopped when the work is done, and the lines that it has written. */
async function linesOf(level: LogLevel, work: (client: ManagedClient, server: ManagedServer) => Promise<void>) {
  const lines: Line[] = [];
  const logger = createLogger({ level, destination: { write: (line) => lines.push(JSON.parse(line)) } });
  const server = new ManagedServer(identity, { port: 0, logger });
  const port = await server.start();
  const client = new ManagedClient(`127.0.0.1:${port}`);
  await work(client, server);
  await client.close();
  await server.stop({ graceMs: 0 });
  return { lines, port };
}

it('a server has one line for each thing that happens to it and its models, and none for requests', async () => {
  const { lines, port } = await linesOf('info', async (client, server) => {
    await client.compute(someTensors);
    const crashed = new Promise((resolve) => server.modelManager.once('state', resolve));
    process.kill(server.modelManager.getModelInfo('identity').pid ?? expect.fail('no process'), 'SIGKILL');
    await crashed;
    await client.compute(someTensors);
    await commFailure(client.compute({ wrong: someTensors.x as never }));
  });
  const ours = lines.filter(({ event }) => event !== undefined);
  expect(ours.map(({ event }) => event)).toEqual([
    ...['model-loading', 'model-ready', 'listening'],
    ...['model-restarting', 'model-ready'],
    ...['draining', 'model-unloaded', 'stopped'],
  ]);
  expect(ours[2]).toMatchObject({ host: '127.0.0.1', port });
  expect(ours[3]).toMatchObject({ model: 'identity', code: 'MODEL_CRASHED' });
  const crashes = lines.filter(({ msg }) => String(msg).includes('SIGKILL'));
  expect(crashes).toMatchObject([{ level: 'warn', model: 'identity' }]);
});

it('a server that is asked for all has a line for each request, with its id', async () => {
  const { lines } = await linesOf('debug', async (client) => {
    await client.compute(someTensors, { requestId: 'good' });
    await commFailure(client.compute({ wrong: someTensors.x as never }, { requestId: 'bad' }));
  });
  expect(lines.filter(({ event }) => event === 'request')).toMatchObject([
    { requestId: 'good', model: 'identity', code: 'OK', durationMs: expect.any(Number), queueMs: expect.any(Number) },
    { requestId: 'bad', model: 'identity', code: 'INVALID_INPUT', error: expect.stringContaining("'x'") },
  ]);
});
