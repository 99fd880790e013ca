// What happens when the process of a model dies while it works. Every caller is told at once, and all goes on.
import { setImmediate, setInterval } from 'node:timers/promises';
import { type CommError, ExponentialBackoff } from '@splitlearn/comm';
import { ManagedClient } from '@splitlearn/manager';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  commFailure,
  countTo,
  forever,
  identity,
  loop,
  managerFailure,
  pidOf,
  readAll,
  type Served,
  serve,
  someTensors,
  watchProcesses,
  withFault,
} from './support/managed.js';

watchProcesses();

/** What the product promises, from the crash to the caller's error. */
const PROMPT_MS = 1_000;

let served: Served;
beforeAll(async () => {
  served = await serve([{ modelId: 'writer', source: 'tiny-gpt2', maxQueue: 2 }, { ...loop, maxQueue: 2 }, identity]);
});
afterAll(() => served.close());
afterEach(() => {
  served.log.lines.length = 0;
});

const long = { model: 'writer', maxNewTokens: 240 };

/** Ends the process of a model; the result says how many milliseconds ago. */
function kill(modelId: string, signal: NodeJS.Signals = 'SIGKILL'): () => number {
  process.kill(pidOf(served, modelId), signal);
  const killedMs = performance.now();
  return () => performance.now() - killedMs;
}

/** The error of each, and how long after the kill the last of them came. */
async function failures(work: readonly Promise<unknown>[], sinceKill: () => number) {
  const errors = await Promise.all(work.map(commFailure));
  return { errors, tookMs: sinceKill() };
}

function expectCrash(error: CommError, modelId: string, signal: NodeJS.Signals = 'SIGKILL'): void {
  expect(error).toMatchObject({ code: 'UNAVAILABLE', reason: 'MODEL_CRASHED', retryable: true });
  for (const part of [`'${modelId}'`, signal, 'try again']) expect(error.message).toContain(part);
}

describe.each(['SIGKILL', 'SIGABRT'] as const)('a process that is ended by %s', (signal) => {
  it('while it computes in native code fails that request and those that wait, within a second', async () => {
    const running = served.client.compute(forever, { model: 'loop', requestId: `running ${signal}` });
    await served.log.until(`began running ${signal}`);
    const waiting = [1, 2].map(() => served.client.compute(countTo(1), { model: 'loop' }));
    // Requests arrive in their order, so those two wait when this one finds the queue full.
    expect((await commFailure(served.client.compute(countTo(1), { model: 'loop' }))).reason).toBe('QUEUE_FULL');

    const { errors, tookMs } = await failures([running, ...waiting], kill('loop', signal));
    for (const error of errors) expectCrash(error, 'loop', signal);
    expect(tookMs).toBeLessThan(PROMPT_MS);
  });
});

describe('a process that is killed', () => {
  it('in the middle of a stream fails it within a second, after what was generated so far', async () => {
    const pieces = served.client.generate('In the beginning', long);
    const { value: first } = await pieces.next();
    expect(first?.text).toBe(' of');
    const { errors, tookMs } = await failures([readAll(pieces)], kill('writer'));
    for (const error of errors) expectCrash(error, 'writer');
    expect(tookMs).toBeLessThan(PROMPT_MS);
  });

  it('fails all it has: a stream, and a stream and a request that wait', async () => {
    const running = served.client.generate('In the beginning', long);
    await running.next();
    const waiting = [readAll(served.client.generate('The king', long)), served.client.infer('The king', long)];
    // A stream takes some turns of the event loop to leave, a single request none.
    await setImmediate();
    expect((await commFailure(served.client.infer('The king', long))).reason).toBe('QUEUE_FULL');
    const { errors, tookMs } = await failures([readAll(running), ...waiting], kill('writer'));
    for (const error of errors) expectCrash(error, 'writer');
    expect(tookMs).toBeLessThan(PROMPT_MS);
  });

  it('is replaced at once, and once only, however many requests wait for it', async () => {
    const pieces = served.client.generate('In the beginning', long);
    await pieces.next();
    const before = pidOf(served, 'writer');
    kill('writer');
    await commFailure(readAll(pieces));
    expect(served.server.modelManager.getModelInfo('writer')).toMatchObject({ state: 'LOADING', leases: 0 });
    expect(served.server.modelManager.getModelInfo('writer')).not.toHaveProperty('pid');

    const answers = [1, 2, 3].map(() => served.client.infer('In the beginning', { model: 'writer', maxNewTokens: 1 }));
    expect((await Promise.all(answers)).map(({ text }) => text)).toEqual([' of', ' of', ' of']);
    const after = served.server.modelManager.getModelInfo('writer');
    expect(after.state).toBe('READY');
    expect(after.pid).not.toBe(before);
    expect(served.log.lines.filter((line) => line.includes('was ended by SIGKILL'))).toHaveLength(1);
  });

  it('does not disturb the requests of another model', async () => {
    let crashed = false;
    const others = async () => {
      let answered = 0;
      while (!crashed || answered < 20) {
        const { y } = await served.client.infer(someTensors, { model: 'identity', timeoutMs: 10_000 });
        expect(y?.data).toEqual(someTensors.x?.data);
        answered++;
      }
    };
    const undisturbed = others();
    for (let crash = 0; crash < 2; crash++) {
      const pieces = served.client.generate('In the beginning', long);
      await pieces.next();
      kill('writer');
      expectCrash(await commFailure(readAll(pieces)), 'writer');
    }
    crashed = true;
    await undisturbed;
    expect(served.server.modelManager.getModelInfo('identity').state).toBe('READY');
  });

  it('is not noticed by a client that may try again', async () => {
    await using client = new ManagedClient(`127.0.0.1:${served.port}`, { retry: new ExponentialBackoff() });
    const answer = client.infer('In the beginning', { ...long, maxNewTokens: 200, requestId: 'again' });
    await served.log.until('began again');
    kill('writer');
    expect((await answer).tokenIds).toHaveLength(200);
  });

  it('right after it was loaded is started again, and measured anew', async () => {
    await served.server.loadModel({ ...identity, modelId: 'short-lived' });
    kill('short-lived');
    await served.log.until("'short-lived' was ended by SIGKILL");
    expect(served.server.modelManager.getModelInfo('short-lived').state).toBe('LOADING');
    expect((await served.client.infer(someTensors, { model: 'short-lived' })).y?.shape).toEqual([3]);
    expect(served.server.modelManager.getModelInfo('short-lived').memoryBytes).toBeGreaterThan(10_000_000);
    await served.server.unloadModel('short-lived');
  });

  it('when its channel to the server is lost, for then nobody looks after it', async () => {
    await withFault('closes its channel', () => served.server.loadModel({ ...identity, modelId: 'cut off' }));
    kill('cut off', 'SIGUSR2');
    await served.log.until("'cut off' was ended by SIGKILL");
    expect((await served.client.infer(someTensors, { model: 'cut off' })).y?.shape).toEqual([3]);
    await served.server.unloadModel('cut off');
  });
});

it.each(['SIGKILL', 'SIGABRT'] as const)(
  'under 100 requests a second for two models, one that %s ends again and again takes nothing from the other',
  async (signal) => {
    await served.client.compute(countTo(1), { model: 'loop' });
    const others: Promise<unknown>[] = [];
    const victims: Promise<CommError | undefined>[] = [];
    for await (const tick of setInterval(10, undefined)) {
      void tick;
      const request = others.length + victims.length;
      if (request === 200) break;
      if (request % 2 === 0)
        others.push(served.client.infer(someTensors, { model: 'identity' }).then(({ y }) => y?.data));
      else {
        const work = served.client.compute(countTo(10_000), { model: 'loop' });
        victims.push(
          work.then(
            () => undefined,
            (error: CommError) => error,
          ),
        );
      }
      const { pid } = served.server.modelManager.getModelInfo('loop');
      if (request % 70 === 69 && pid !== undefined) process.kill(pid, signal);
    }
    expect(await Promise.all(others)).toEqual(others.map(() => someTensors.x?.data));
    // Of the other, only those fail that its process had, and those beyond what may wait for a new one.
    const failed = (await Promise.all(victims)).filter((error) => error !== undefined);
    expect(failed.length).toBeLessThan(victims.length);
    for (const { reason } of failed) expect(['MODEL_CRASHED', 'QUEUE_FULL']).toContain(reason);
    expect((await served.client.compute(countTo(3), { model: 'loop' })).count?.data).toEqual(BigInt64Array.of(3n));
  },
);

describe('a process that dies while it loads', () => {
  it.each([
    { fault: 'dies while it loads', how: 'was ended by SIGKILL', output: 'there is no memory left' },
    { fault: 'exits while it loads', how: 'ended with exit code 3', output: '' },
    { fault: 'dies when it is ready', how: 'was ended by SIGKILL', output: '' },
  ])('is a load that failed, and leaves nothing behind: it $fault', async ({ fault, how, output }) => {
    const config = { ...identity, modelId: 'unlucky' };
    const before = served.server.getStatus();
    const error = await withFault(fault, () => managerFailure(served.server.loadModel(config)));
    expect(error.code).toBe('MODEL_LOAD_FAILED');
    for (const part of ["'unlucky'", how, 'while it was loaded', output]) expect(error.message).toContain(part);
    const after = served.server.getStatus();
    expect(after.models.map(({ modelId }) => modelId)).toEqual(before.models.map(({ modelId }) => modelId));
    // Less than what any model would have been reserved: the others' memory is measured now and then.
    expect(after.resources.reservedBytes - before.resources.reservedBytes).toBeLessThan(50 * 2 ** 20);

    expect((await served.server.loadModel(config)).state).toBe('READY');
    await served.server.unloadModel('unlucky');
  });

  it('each time it is started again is given up, and says so, until it is mended and reloaded', async () => {
    const errors = await withFault('dies while it loads', async () => {
      kill('identity');
      await served.log.until("'identity' was ended by SIGKILL");
      const requests = Array.from({ length: 5 }, () => served.client.infer(someTensors, { model: 'identity' }));
      return Promise.all(requests.map(commFailure));
    });
    expect(new Set(errors.map(({ message }) => message)).size).toBe(1);
    expect(errors[0]).toMatchObject({ code: 'UNAVAILABLE', reason: 'MODEL_FAILED' });
    for (const part of ['again and again', 'reloadModel', 'there is no memory left'])
      expect(errors[0]?.message).toContain(part);
    expect(served.server.modelManager.getModelInfo('identity').state).toBe('FAILED');
    expect((await commFailure(served.client.infer(someTensors, { model: 'identity' }))).reason).toBe('MODEL_FAILED');
    await served.server.modelManager.reloadModel('identity');
    expect((await served.client.infer(someTensors, { model: 'identity' })).y?.shape).toEqual([3]);
  });

  it('that cannot even be started is a load that failed', async () => {
    const { execPath } = process;
    process.execPath = '/nowhere/node';
    try {
      const error = await managerFailure(served.server.loadModel({ ...identity, modelId: 'stillborn' }));
      expect(error.code).toBe('MODEL_LOAD_FAILED');
      for (const part of ["'stillborn'", 'could not be started', '/nowhere/node'])
        expect(error.message).toContain(part);
    } finally {
      process.execPath = execPath;
    }
  });
});

it('a process that talks all the time computes all the same, and its crash reaches the caller', async () => {
  await withFault('talks all the time', () => served.server.loadModel({ ...loop, modelId: 'chatty' }));
  await served.log.until("model 'chatty': €😀");
  for (let request = 0; request < 5; request++) {
    const { count } = await served.client.compute(countTo(1_000), { model: 'chatty' });
    expect(count?.data).toEqual(BigInt64Array.of(1_000n));
  }
  const running = served.client.compute(forever, { model: 'chatty', requestId: 'chat' });
  await served.log.until('began chat');
  const { errors, tookMs } = await failures([running], kill('chatty'));
  for (const error of errors) {
    expectCrash(error, 'chatty');
    expect(error.message).toContain('its last output: ');
    expect(error.message).toContain('😀');
  }
  expect(tookMs).toBeLessThan(PROMPT_MS);
  await served.server.unloadModel('chatty');
});
