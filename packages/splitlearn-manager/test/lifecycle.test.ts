// Models come and go; nothing of them is left behind, and nobody who uses one loses it.
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type ManagedModelInfo, ManagedServer } from '@splitlearn/manager';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  childProcesses,
  commFailure,
  countTo,
  forever,
  identity,
  isAlive,
  Log,
  loop,
  managerFailure,
  onnxFile,
  pidOf,
  readAll,
  type Served,
  serve,
  someTensors,
  temporaryFiles,
  watchProcesses,
  withFault,
} from './support/managed.js';

watchProcesses();

const writer = { modelId: 'writer', source: 'tiny-gpt2' };
const prompt = 'In the beginning';

/** Loaded at first: a text model in a process, and one in a thread. Each test leaves the server as it was. */
let served: Served;
beforeAll(async () => {
  served = await serve([writer, { ...writer, modelId: 'thread', isolation: 'thread' }]);
});
afterAll(() => served.close());

function modelIds(): readonly string[] {
  return served.server.getStatus().models.map(({ modelId }) => modelId);
}

/** A server of its own, without anything else to be seen: how many processes and files it left behind. */
async function leftBehind(work: () => Promise<unknown>): Promise<{ processes: number; files: readonly string[] }> {
  const processes = childProcesses();
  const files = temporaryFiles();
  await work();
  return { processes: childProcesses() - processes, files: temporaryFiles().filter((name) => !files.includes(name)) };
}
const nothing = { processes: 0, files: [] };

/** What is known of a model, but for its memory, which is measured once a second. */
function steady({ memoryBytes: _, attributes, ...model }: ManagedModelInfo) {
  const { memoryBytes: __, ...others } = attributes ?? {};
  return { ...model, attributes: others };
}

describe('loading', () => {
  it('one model many times at once is one process, and its listing is that of the server', async () => {
    const processes = childProcesses();
    const loads = await Promise.all(Array.from({ length: 10 }, () => served.server.loadModel(identity)));
    expect(new Set(loads.map(({ pid }) => pid)).size).toBe(1);
    expect(childProcesses()).toBe(processes + 1);
    expect(loads[0]).toMatchObject({
      modelId: 'identity',
      state: 'READY',
      engine: 'onnx',
      isolation: 'process',
      leases: 0,
    });
    expect(loads[0]?.memoryBytes).toBeGreaterThan(10_000_000);
    expect(loads[0]?.loadMs).toBeGreaterThan(0);
    await served.server.unloadModel('identity');
  });

  it('lets requests that come meanwhile wait', async () => {
    const loading = served.server.loadModel(identity);
    await expect.poll(() => served.server.modelManager.getModel('identity')?.state).toBe('LOADING');
    expect((await served.client.infer(someTensors, { model: 'identity' })).y?.shape).toEqual([3]);
    expect((await loading).state).toBe('READY');
    await served.server.unloadModel('identity');
  });

  it('lists the models in the order in which they were given, whichever is found or ready first', async () => {
    const quick = (modelId: string) => ({ ...identity, modelId, isolation: 'thread' }) as const;
    const models = [{ ...writer, isolation: 'thread' } as const, quick('z'), quick('a'), quick('m')];
    await using several = await serve(models);
    const expected = ['writer', 'z', 'a', 'm'];
    expect(several.server.getStatus().models.map(({ modelId }) => modelId)).toEqual(expected);
    expect((await several.client.listModels()).map(({ name }) => name)).toEqual(expected);
    await several.server.unloadModel('z');
    await several.server.loadModel(quick('z'));
    expect((await several.client.listModels()).map(({ name }) => name)).toEqual(['writer', 'a', 'm', 'z']);
  });

  it('can be done to a server that began without models', async () => {
    await using empty = await serve([]);
    expect(empty.server.getStatus().models).toEqual([]);
    await empty.server.loadModel({ ...loop, isolation: 'thread' });
    expect((await empty.client.compute(countTo(7))).count?.data).toEqual(BigInt64Array.of(7n));
  });
});

describe('unloading', () => {
  it('gives back every byte: the process is gone, and so is its folder', async () => {
    const files = temporaryFiles();
    const { pid = 0, memoryBytes } = await served.server.loadModel(loop);
    expect(isAlive(pid)).toBe(true);
    expect(temporaryFiles()).toHaveLength(files.length + 1);
    const report = await served.server.unloadModel('loop');
    expect(report).toMatchObject({ modelId: 'loop', interrupted: 0 });
    expect(report.reclaimedBytes).toBeGreaterThan(memoryBytes / 2);
    expect(report.durationMs).toBeGreaterThan(0);
    expect(() => process.kill(pid, 0)).toThrow(expect.objectContaining({ code: 'ESRCH' }));
    expect(temporaryFiles()).toEqual(files);
    expect(modelIds()).toEqual(['writer', 'thread']);
  });

  it.each(['process', 'thread'] as const)(
    'waits for a stream that runs in a %s, and takes no new requests',
    async (isolation) => {
      await served.server.loadModel({ ...writer, modelId: 'leaving', isolation });
      const pieces = served.client.generate(prompt, { model: 'leaving', maxNewTokens: 100 });
      await pieces.next();
      const unloading = served.server.unloadModel('leaving');
      expect(served.server.modelManager.getModelInfo('leaving')).toMatchObject({ state: 'DRAINING', leases: 1 });

      const refused = await commFailure(served.client.infer(prompt, { model: 'leaving' }));
      expect(refused).toMatchObject({ code: 'UNAVAILABLE', reason: 'MODEL_DRAINING', retryable: true });
      expect((await managerFailure(served.server.unloadModel('leaving'))).code).toBe('MODEL_DRAINING');
      const again = managerFailure(served.server.loadModel({ ...writer, modelId: 'leaving', isolation }));
      expect((await again).code).toBe('MODEL_DRAINING');

      expect(await readAll(pieces)).toHaveLength(99);
      expect((await unloading).interrupted).toBe(0);
      expect(modelIds()).toEqual(['writer', 'thread']);
    },
  );

  it.each(['process', 'thread'] as const)(
    'cuts off a stream in a %s that takes longer than it may',
    async (isolation) => {
      await served.server.loadModel({ ...writer, modelId: 'leaving', isolation });
      const pieces = served.client.generate(prompt, { model: 'leaving', maxNewTokens: 240 });
      await pieces.next();
      const waiting = served.client.infer(prompt, { model: 'leaving' });
      await expect.poll(() => served.server.modelManager.getModelInfo('leaving').leases).toBe(2);
      const unloading = served.server.unloadModel('leaving', { graceMs: 0 });
      for (const error of await Promise.all([commFailure(readAll(pieces)), commFailure(waiting)])) {
        expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: 'MODEL_DRAINING', retryable: true });
        expect(error.message).toContain("'leaving'");
      }
      expect((await unloading).interrupted).toBe(2);
      expect(modelIds()).toEqual(['writer', 'thread']);
    },
  );

  it('ends a process that computes in native code, and one that does not answer at all', async () => {
    await Promise.all(['busy', 'stopped'].map((modelId) => served.server.loadModel({ ...loop, modelId })));
    const pids = [pidOf(served, 'busy'), pidOf(served, 'stopped')];
    const running = served.client.compute(forever, { model: 'busy', requestId: 'busy' });
    const failed = commFailure(running);
    await served.log.until('began busy');
    process.kill(pidOf(served, 'stopped'), 'SIGSTOP');
    const unloads = ['busy', 'stopped'].map((modelId) => served.server.unloadModel(modelId, { graceMs: 0 }));
    expect((await Promise.all(unloads)).map(({ interrupted }) => interrupted)).toEqual([1, 0]);
    expect((await failed).reason).toBe('MODEL_DRAINING');
    expect(pids.map(isAlive)).toEqual([false, false]);
  });

  it('waits no longer than a moment for a thread that computes in native code, which nothing can stop', async () => {
    await served.server.loadModel({ ...loop, isolation: 'thread' });
    let computed = false;
    const running = Promise.allSettled([served.client.compute(countTo(3_000_000), { model: 'loop' })]);
    void running.then(() => (computed = true));
    await expect.poll(() => served.server.modelManager.getModelInfo('loop').leases).toBe(1);
    expect((await served.server.unloadModel('loop', { graceMs: 0 })).interrupted).toBe(1);
    expect(computed).toBe(false);
    expect(modelIds()).toEqual(['writer', 'thread']);
    await running; // and only then the thread ends: at any other time it would take this process along
  });

  it('a model that is still being loaded gives up its start', async () => {
    const left = await leftBehind(async () => {
      const loading = withFault('never gets ready', () =>
        managerFailure(served.server.loadModel({ ...identity, modelId: 'slow' })),
      );
      await served.log.until("model 'slow': never gets ready");
      const request = commFailure(served.client.infer(someTensors, { model: 'slow' }));
      await expect.poll(() => served.server.getStatus().calls.inFlight).toBe(1);
      const report = await served.server.unloadModel('slow');
      expect(report).toMatchObject({ interrupted: 0, reclaimedBytes: 0 });
      expect((await loading).code).toBe('MODEL_DRAINING');
      expect((await request).reason).toBe('MODEL_DRAINING');
    });
    expect(left).toEqual(nothing);
    expect(modelIds()).toEqual(['writer', 'thread']);
  });

  it('a model that is still being loaded in a thread harms no other that is loaded in its place', async () => {
    const config = { ...identity, isolation: 'thread' } as const;
    const given = managerFailure(served.server.loadModel(config));
    await expect.poll(() => served.server.modelManager.getModel('identity')?.state).toBe('LOADING');
    const unloading = served.server.unloadModel('identity');
    expect((await given).code).toBe('MODEL_DRAINING');
    expect((await served.server.loadModel(config)).state).toBe('READY');
    await unloading;
    expect((await served.client.infer(someTensors, { model: 'identity' })).y?.shape).toEqual([3]);
    expect(modelIds()).toEqual(['writer', 'thread', 'identity']);
    await served.server.unloadModel('identity');
  });

  it('and loading the same model over and over leaves nothing of it', async () => {
    const left = await leftBehind(async () => {
      for (let round = 0; round < 2; round++) {
        const [loaded] = await Promise.all([served.server.loadModel(identity), served.server.loadModel(identity)]);
        expect(loaded.state).toBe('READY');
        await served.server.unloadModel('identity');
      }
    });
    expect(left).toEqual(nothing);
    expect(modelIds()).toEqual(['writer', 'thread']);
  });
});

describe('a model at work', () => {
  it('does not keep the server from answering health checks', async () => {
    const pieces = served.client.generate(prompt, { model: 'writer', maxNewTokens: 200 });
    const inThread = served.client.generate(prompt, { model: 'thread', maxNewTokens: 200 });
    await Promise.all([pieces.next(), inThread.next()]);
    for (let check = 0; check < 20; check++) expect(await served.client.healthCheck()).toBe('SERVING');
    expect((await served.client.listModels()).map(({ state }) => state)).toEqual(['READY', 'READY']);
    expect(await readAll(pieces)).toHaveLength(199);
    expect(await readAll(inThread)).toHaveLength(199);
  });

  it.each([
    { busy: 'writer', other: 'thread' },
    { busy: 'thread', other: 'writer' },
  ])('in $busy does not keep $other from working', async ({ busy, other }) => {
    const pieces = served.client.generate(prompt, { model: busy, maxNewTokens: 240 });
    await pieces.next();
    expect((await served.client.infer(prompt, { model: other, maxNewTokens: 1 })).text).toBe(' of');
    expect(served.server.modelManager.getModelInfo(busy).leases).toBe(1);
    expect(await readAll(pieces)).toHaveLength(239);
  });

  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    'is not ended by a %s that was meant for the server',
    async (signal) => {
      const pieces = served.client.generate(prompt, { model: 'writer', maxNewTokens: 100 });
      await pieces.next();
      process.kill(pidOf(served, 'writer'), signal);
      expect(await readAll(pieces)).toHaveLength(99);
      expect(served.server.modelManager.getModelInfo('writer').state).toBe('READY');
    },
  );
});

it('models of all engines and isolations work side by side, and all that tells of them agrees', async () => {
  await served.server.loadModel(identity);
  await served.server.loadModel({ ...loop, modelId: 'counter', isolation: 'thread' });
  await Promise.all([
    served.client.infer(prompt, { model: 'writer', maxNewTokens: 8 }),
    served.client.infer(prompt, { model: 'thread', maxNewTokens: 8 }),
    served.client.infer(someTensors, { model: 'identity' }),
    served.client.compute(countTo(10), { model: 'counter' }),
    commFailure(served.client.infer(prompt, { model: 'counter' })),
  ]);

  const { models, requestsByModel, resources, port, calls } = served.server.getStatus();
  expect(models.map(({ modelId, engine, isolation, state }) => [modelId, engine, isolation, state])).toEqual([
    ['writer', 'transformers', 'process', 'READY'],
    ['thread', 'transformers', 'thread', 'READY'],
    ['identity', 'onnx', 'process', 'READY'],
    ['counter', 'onnx', 'thread', 'READY'],
  ]);
  const pids = models.map(({ pid }) => pid);
  expect(new Set(pids).size).toBe(3);
  expect([pids[1], pids[3]]).toEqual([process.pid, process.pid]);
  expect(port).toBe(served.port);
  expect(calls.inFlight).toBe(0);
  const memoryBytes = models.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  // The KV cache of a text model is kept free for it.
  expect(resources.reservedBytes - memoryBytes).toBeGreaterThanOrEqual(0);
  expect(resources.reservedBytes - memoryBytes).toBeLessThan(10 * 2 ** 20);
  expect(resources.reservedThreads).toBe(models.reduce((sum, { threads }) => sum + threads, 0));

  const listed = await served.client.listModels();
  expect(listed.map(({ name, state }) => [name, state])).toEqual(models.map(({ modelId, state }) => [modelId, state]));
  for (const [index, { inputs, outputs, attributes }] of listed.entries()) {
    expect({ inputs, outputs }).toEqual({ inputs: models[index]?.inputs, outputs: models[index]?.outputs });
    expect(attributes).toMatchObject({ engine: models[index]?.engine, isolation: models[index]?.isolation });
  }
  expect(served.server.modelManager.listModels().map(steady)).toEqual(models.map(steady));
  const statistics = served.server.modelManager.getStatistics();
  expect(statistics.models.map(steady)).toEqual(models.map(steady));
  expect(statistics).toMatchObject({ requestsByModel });

  const metrics = await served.server.metrics.metrics();
  for (const [model, { succeeded, failed }] of Object.entries(requestsByModel)) {
    const count = (outcome: string) => {
      const name = `splitlearn_request_duration_seconds_count{model="${model}",outcome="${outcome}"} `;
      return Number(
        metrics
          .split('\n')
          .find((line) => line.startsWith(name))
          ?.slice(name.length) ?? 0,
      );
    };
    expect([model, count('success'), count('error')]).toEqual([model, succeeded, failed]);
  }
  expect(requestsByModel.counter).toMatchObject({ requests: 2, succeeded: 1, failed: 1 });
  expect(metrics).toContain('splitlearn_model_load_duration_seconds_count{model="identity",outcome="success"}');
  await Promise.all([served.server.unloadModel('identity'), served.server.unloadModel('counter')]);
});

describe('stopping', () => {
  it('lets what runs finish, refuses what comes, and leaves nothing behind', async () => {
    const left = await leftBehind(async () => {
      const { server, client } = await serve([
        { ...loop, modelId: 'one' },
        { ...loop, modelId: 'two' },
      ]);
      const running = client.compute(countTo(300_000), { model: 'one' });
      await expect.poll(() => server.modelManager.getModelInfo('one').leases).toBe(1);
      const stopping = server.stop();
      expect((await running).count?.data).toEqual(BigInt64Array.of(300_000n));
      await stopping;
      await server.waitForTermination();
      expect(server.getStatus().models).toEqual([]);
      expect(server.getStatus()).not.toHaveProperty('port');
      expect((await commFailure(client.compute(countTo(1), { model: 'one' }))).code).toBe('UNAVAILABLE');
      await client.close();
      await server.stop();
    });
    expect(left).toEqual(nothing);
  });

  it('cuts off what takes longer than it may, in native code as well', async () => {
    const left = await leftBehind(async () => {
      const { server, client, log } = await serve(loop);
      const failed = commFailure(client.compute(forever, { requestId: 'forever' }));
      await log.until('began forever');
      await server.stop({ graceMs: 0 });
      expect((await failed).code).toBe('UNAVAILABLE');
      await client.close();
    });
    expect(left).toEqual(nothing);
  });

  it('also ends a model that is just being unloaded in peace', async () => {
    const left = await leftBehind(async () => {
      const processes = childProcesses();
      const { server, client, log } = await serve(loop);
      const failed = commFailure(client.compute(forever, { requestId: 'forever' }));
      await log.until('began forever');
      const unloading = server.unloadModel('loop', { graceMs: Number.POSITIVE_INFINITY });
      await server.stop({ graceMs: 0 });
      expect(childProcesses()).toBe(processes);
      await unloading;
      expect((await failed).code).toBe('UNAVAILABLE');
      await client.close();
    });
    expect(left).toEqual(nothing);
  });

  it('while it starts gives up the start', async () => {
    const left = await leftBehind(async () => {
      const log = new Log();
      const server = new ManagedServer([{ ...identity, modelId: 'slow' }], { port: 0, logger: log });
      const starting = withFault('never gets ready', () => managerFailure(server.start()));
      await log.until('never gets ready');
      await server.stop();
      expect((await starting).code).toBe('MODEL_DRAINING');
      expect(server.getStatus().models).toEqual([]);
    });
    expect(left).toEqual(nothing);
  });

  it('at the very moment of the start gives it up', async () => {
    const left = await leftBehind(async () => {
      const server = new ManagedServer(identity, { port: 0, logger: new Log() });
      const starting = managerFailure(server.start());
      await server.stop();
      expect(['SHUT_DOWN', 'MODEL_DRAINING']).toContain((await starting).code);
    });
    expect(left).toEqual(nothing);
  });

  it('a server that was never started unloads what was loaded', async () => {
    const left = await leftBehind(async () => {
      const server = new ManagedServer([], { port: 0, logger: new Log() });
      await server.loadModel(identity);
      await server.stop();
      await server.waitForTermination();
      expect(server.getStatus().models).toEqual([]);
    });
    expect(left).toEqual(nothing);
  });

  it('happens by itself at the end of a block', async () => {
    const left = await leftBehind(async () => {
      await using server = new ManagedServer(identity, { port: 0, logger: new Log() });
      await server.start();
      expect(server.getStatus().models).toHaveLength(1);
    });
    expect(left).toEqual(nothing);
  });
});

it('a process whose server is killed ends, though it computes in native code, and takes its folder along', async () => {
  const files = temporaryFiles();
  const script = fileURLToPath(new URL('./support/server-to-kill.mjs', import.meta.url));
  const server = spawn(process.execPath, [script, onnxFile('loop')], { stdio: ['ignore', 'pipe', 'inherit'] });
  let pid = 0;
  for await (const line of createInterface({ input: server.stdout })) {
    pid ||= Number(/^pid (\d+)$/.exec(line)?.[1] ?? 0);
    if (line.includes('began forever')) break;
  }
  expect(isAlive(pid)).toBe(true);
  expect(temporaryFiles()).toHaveLength(files.length + 1);
  server.kill('SIGKILL');
  await expect.poll(() => isAlive(pid)).toBe(false);
  expect(temporaryFiles()).toEqual(files);
});
