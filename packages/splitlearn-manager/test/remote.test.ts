// A model that another server has.
import { createServer, type Socket } from 'node:net';
import {
  AsyncGRPCComputeServer,
  AsyncModelComputeFunction,
  type CommError,
  type ComputeRequest,
  callContext,
  tensor,
} from '@splitlearn/comm';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { ManagerError } from '../src/errors.js';
import { type RemoteHostOptions, startRemoteHost } from '../src/hosts/remote-host.js';
import { collect } from './fixtures/tiny-gpt2.js';
import { identity, type Served, serve, someTensors } from './support/managed.js';

/** Another machine, as far as anybody can tell. */
let there: Served;
beforeAll(async () => {
  const quick = { ...identity, isolation: 'thread' } as const;
  there = await serve([quick, { modelId: 'writer', source: 'tiny-gpt2', isolation: 'thread' }]);
});
afterAll(() => there.close());

const never = new AbortController().signal;

function options(others: Partial<RemoteHostOptions> = {}): RemoteHostOptions {
  const address = `127.0.0.1:${there.port}`;
  return { modelId: 'here', address, source: 'identity', maxMessageLength: 64 * 2 ** 20, ...others };
}

async function start(others?: Partial<RemoteHostOptions>) {
  const host = await startRemoteHost(options(others), never);
  onTestFinished(() => host.stop());
  return host;
}

async function failure(others: Partial<RemoteHostOptions>, signal = never): Promise<ManagerError> {
  return startRemoteHost(options(others), signal).then(
    () => expect.fail('nothing was thrown'),
    (reason) => reason,
  );
}

async function* one(request: ComputeRequest) {
  yield request;
}

describe('a model at an address', () => {
  it('answers under the name that it has here, and takes nothing here', async () => {
    const host = await start();
    const request = { model: 'here', inputs: someTensors };
    const response = await host.computeFn.compute(request, callContext());
    expect(response.outputs).toEqual({ y: someTensors.x });
    expect(response).not.toHaveProperty('model');
    expect(response.timing).toBeDefined();
    expect(host.info).toMatchObject({
      inputs: [{ name: 'x', dtype: 'float32' }],
      attributes: { address: options().address, remoteName: 'identity', engine: 'onnx' },
    });
    expect(host.info).not.toHaveProperty('name');
    expect(host).not.toHaveProperty('pid');
    expect(await host.memoryBytes()).toBe(0);
  });

  it('streams', async () => {
    const host = await start({ source: 'writer' });
    const request = { inputs: { text: tensor('In the beginning') }, parameters: { maxNewTokens: 3 } };
    const pieces = await collect(
      (async function* () {
        for await (const { outputs } of host.computeFn.stream?.(one(request), callContext()) ?? []) yield outputs;
      })(),
    );
    expect(pieces).toHaveLength(3);
    expect(pieces[0]?.text?.data).toEqual([' of']);
  });

  it('passes on errors as they are there', async () => {
    const host = await start();
    const error: CommError = await host.computeFn.compute({ inputs: {} }, callContext()).then(
      () => expect.fail('nothing was thrown'),
      (reason) => reason,
    );
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', reason: 'INVALID_INPUT' });
    expect(error.message).toContain("was not given 'x'");
  });

  it('may be behind any server of comm', async () => {
    const computeFn = new AsyncModelComputeFunction({ model: { run: ({ x }) => ({ z: x ?? tensor(0) }) } });
    await using server = new AsyncGRPCComputeServer({ computeFn, host: '127.0.0.1', port: 0 });
    const port = await server.start();
    const host = await start({ address: `127.0.0.1:${port}`, source: 'default' });
    expect((await host.computeFn.compute({ inputs: someTensors }, callContext())).outputs).toEqual({
      z: someTensors.x,
    });
  });

  it('is there again when its server is', async () => {
    const first = await serve({ ...identity, isolation: 'thread' });
    const { port } = first;
    const host = await start({ address: `127.0.0.1:${port}` });
    await first.close();
    await expect(
      host.computeFn.compute({ inputs: someTensors }, callContext({ timeoutMs: 20_000 })),
    ).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await using again = await serve({ ...identity, isolation: 'thread' }, { port });
    expect(again.port).toBe(port);
    const ask = () =>
      host.computeFn.compute({ inputs: someTensors }, callContext()).then(({ outputs }) => outputs.y?.shape, String);
    await expect.poll(ask).toEqual([3]);
  });
});

describe('a model at an address that', () => {
  it('has no such model cannot be used, and what it has is said', async () => {
    const error = await failure({ source: 'gpt9' });
    expect(error).toBeInstanceOf(ManagerError);
    expect(error.code).toBe('SOURCE_NOT_FOUND');
    for (const part of ["'here'", "'gpt9'", options().address, "'identity', 'writer'"]) {
      expect(error.message).toContain(part);
    }
  });

  it('nobody listens at, or nobody answers at, cannot be used', async () => {
    const sockets: Socket[] = [];
    const silent = createServer((socket) => sockets.push(socket)).listen(0, '127.0.0.1');
    await new Promise((resolve) => silent.once('listening', resolve));
    const { port } = silent.address() as { port: number };
    const address = `127.0.0.1:${port}`;
    const waiting = await failure({ address, connectTimeoutMs: 200 });
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => silent.close(resolve));
    const refused = await failure({ address, connectTimeoutMs: 200 });
    for (const error of [waiting, refused]) {
      expect(error.code).toBe('SOURCE_UNAVAILABLE');
      expect(error.message).toContain(`at ${address}, where no server answers within 200 ms`);
    }
  });

  it('is none cannot be used', async () => {
    const error = await failure({ address: 'gpu box' });
    expect(error.code).toBe('INVALID_CONFIG');
    expect(error.message).toContain("'gpu box' is no address");
  });

  it('is given up is given up', async () => {
    const reason = new Error('not needed any more');
    expect(await failure({}, AbortSignal.abort(reason))).toBe(reason);
    const controller = new AbortController();
    const starting = failure({ address: '127.0.0.1:1', connectTimeoutMs: 60_000 }, controller.signal);
    controller.abort(reason);
    expect(await starting).toBe(reason);
  });
});
