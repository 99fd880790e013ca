import { type ClientReadableStream, credentials, Client as GrpcClient, type MethodDefinition } from '@grpc/grpc-js';
import { AsyncGRPCComputeServer, GRPCComputeClient, type HealthStatus } from '@splitlearn/comm';
import { service as healthService } from 'grpc-health-check';
import { afterEach, describe, expect, it } from 'vitest';
import { deferred, rejection } from './support/deferred.js';
import { echo } from './support/functions.js';

const SERVICE = 'splitlearn.comm.v1.ComputeService';
type Method<Request, Response> = MethodDefinition<Request, Response>;

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function serve(server = new AsyncGRPCComputeServer({ computeFn: echo, port: 0 })) {
  const port = await server.start();
  const client = new GRPCComputeClient(`127.0.0.1:${port}`);
  const grpc = new GrpcClient(`127.0.0.1:${port}`, credentials.createInsecure());
  closing.push(
    () => server.stop({ graceMs: 0 }),
    () => client.close(),
    () => grpc.close(),
  );
  return { server, client, grpc };
}

/** What those who watch a service are told, one after the other; `undefined` at the end. */
function watch(grpc: GrpcClient, service: string) {
  const { path, requestSerialize, responseDeserialize } = healthService.Watch as Method<
    { service: string },
    { status: HealthStatus }
  >;
  const call: ClientReadableStream<{ status: HealthStatus }> = grpc.makeServerStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    { service },
  );
  call.on('error', () => {});
  closing.push(() => call.cancel());
  const messages = call[Symbol.asyncIterator]();
  return async (): Promise<HealthStatus | undefined> =>
    messages.next().then(
      ({ value }) => value?.status,
      () => undefined,
    );
}

async function listed(grpc: GrpcClient): Promise<Record<string, { status: HealthStatus }>> {
  const { path, requestSerialize, responseDeserialize } = healthService.List as Method<
    object,
    { statuses: Record<string, { status: HealthStatus }> }
  >;
  return new Promise((resolve, reject) =>
    grpc.makeUnaryRequest(path, requestSerialize, responseDeserialize, {}, (error, response) =>
      error ? reject(error) : resolve(response?.statuses ?? {}),
    ),
  );
}

describe('the health of a service', () => {
  it('is what the owner of the server says', async () => {
    const { server, client } = await serve();
    server.setHealth('gpt2', 'NOT_SERVING');
    expect(await client.healthCheck('gpt2')).toBe('NOT_SERVING');
    server.setHealth('gpt2', 'SERVING');
    expect(await client.healthCheck('gpt2')).toBe('SERVING');
    expect(await client.healthCheck()).toBe('SERVING');
  });

  it('may be set before the server listens', async () => {
    const server = new AsyncGRPCComputeServer({ computeFn: echo, port: 0 });
    server.setHealth('gpt2', 'SERVING');
    server.setHealth('bert', 'NOT_SERVING');
    server.setHealth('', 'NOT_SERVING');
    const { client } = await serve(server);
    expect(await client.healthCheck('gpt2')).toBe('SERVING');
    expect(await client.healthCheck('bert')).toBe('NOT_SERVING');
    expect(await client.healthCheck()).toBe('NOT_SERVING');
  });

  it('may be set while the function is set up', async () => {
    const settingUp = deferred();
    const setUp = deferred();
    const server = new AsyncGRPCComputeServer({
      computeFn: {
        ...echo,
        setup: () => {
          settingUp.resolve();
          return setUp.promise;
        },
      },
      port: 0,
    });
    const serving = serve(server);
    await settingUp.promise;
    server.setHealth('gpt2', 'NOT_SERVING');
    setUp.resolve();
    expect(await (await serving).client.healthCheck('gpt2')).toBe('NOT_SERVING');
  });

  it('of the server is that of its compute service as well', async () => {
    const { server, client } = await serve();
    server.setHealth('', 'NOT_SERVING');
    expect([await client.healthCheck(), await client.healthCheck(SERVICE)]).toEqual(['NOT_SERVING', 'NOT_SERVING']);
    server.setHealth('', 'SERVING');
    expect([await client.healthCheck(), await client.healthCheck(SERVICE)]).toEqual(['SERVING', 'SERVING']);
  });

  it('is unknown again when its name is taken back, and is no longer listed', async () => {
    const { server, client, grpc } = await serve();
    server.setHealth('gpt2', 'SERVING');
    expect(Object.keys(await listed(grpc))).toEqual(['', SERVICE, 'gpt2']);
    server.setHealth('gpt2', 'SERVICE_UNKNOWN');
    expect(await rejection(client.healthCheck('gpt2'))).toMatchObject({ code: 'NOT_FOUND' });
    expect(Object.keys(await listed(grpc))).toEqual(['', SERVICE]);
  });

  it('is told to those who watch it, once for each change', async () => {
    const { server, grpc } = await serve();
    const told = watch(grpc, 'gpt2');
    expect(await told()).toBe('SERVICE_UNKNOWN');
    server.setHealth('gpt2', 'SERVING');
    expect(await told()).toBe('SERVING');
    server.setHealth('gpt2', 'SERVING');
    server.setHealth('gpt2', 'NOT_SERVING');
    expect(await told()).toBe('NOT_SERVING');
    server.setHealth('gpt2', 'SERVICE_UNKNOWN');
    expect(await told()).toBe('SERVICE_UNKNOWN');
    server.setHealth('gpt2', 'SERVING');
    expect(await told()).toBe('SERVING');
  });

  it('is NOT_SERVING for everything once the server stops, whatever is said then', async () => {
    const { server, grpc } = await serve();
    server.setHealth('gpt2', 'SERVING');
    const watched = ['', SERVICE, 'gpt2'].map((service) => watch(grpc, service));
    expect(await Promise.all(watched.map((told) => told()))).toEqual(['SERVING', 'SERVING', 'SERVING']);
    const stopping = server.stop();
    for (const service of ['', 'gpt2']) server.setHealth(service, 'SERVING');
    expect(await Promise.all(watched.map((told) => told()))).toEqual(['NOT_SERVING', 'NOT_SERVING', 'NOT_SERVING']);
    for (const service of ['', 'gpt2']) server.setHealth(service, 'SERVING');
    await stopping;
    expect(await Promise.all(watched.map((told) => told()))).toEqual([undefined, undefined, undefined]);
  });

  it('cannot be said of a server without the standard services, and that is no error', async () => {
    const { server, client } = await serve(
      new AsyncGRPCComputeServer({ computeFn: echo, port: 0, standardServices: false }),
    );
    server.setHealth('gpt2', 'SERVING');
    expect(await rejection(client.healthCheck('gpt2'))).toMatchObject({ code: 'UNIMPLEMENTED' });
  });

  it.each([
    { service: '', health: 'SERVICE_UNKNOWN', named: 'the server itself' },
    { service: SERVICE, health: 'SERVICE_UNKNOWN', named: SERVICE },
    { service: 'gpt2', health: 'UNKNOWN', named: 'gpt2' },
    { service: 'gpt2', health: undefined, named: 'undefined' },
    { service: undefined, health: 'SERVING', named: 'undefined' },
  ])('is refused where it is $health of $service', ({ service, health, named }) => {
    const server = new AsyncGRPCComputeServer({ computeFn: echo, port: 0 });
    const set = () => server.setHealth(service as string, health as 'SERVING');
    expect(set).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(named) }));
  });
});
