import { Client, credentials, type MethodDefinition } from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { type Loopback, loopback } from '@splitlearn/comm/testing';
import { service as health } from 'grpc-health-check';
import descriptor from 'protobufjs/ext/descriptor.js';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { collect, rejection } from './support/deferred.js';
import { echo } from './support/functions.js';

const SERVICE = 'splitlearn.comm.v1.ComputeService';

let pair: Loopback;
let grpc: Client;

beforeAll(async () => {
  pair = await loopback(echo);
  grpc = new Client(`127.0.0.1:${pair.port}`, credentials.createInsecure());
});
afterAll(async () => {
  grpc.close();
  await pair.close();
});

describe('health', () => {
  it.each(['', SERVICE])('of %j is SERVING', async (service) => {
    expect(await pair.client.healthCheck(service)).toBe('SERVING');
  });

  it('of the server is what is asked for by default', async () => {
    expect(await pair.client.healthCheck()).toBe('SERVING');
  });

  it('of a service that is not here is NOT_FOUND, by its name', async () => {
    expect(await rejection(pair.client.healthCheck('no.such.Service'))).toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringMatching(new RegExp(`${pair.client.address} failed: .*no\\.such\\.Service`)),
    });
  });

  it('is what any health client can ask for', async () => {
    const { path, requestSerialize, responseDeserialize } = health.Check as MethodDefinition<
      { service: string },
      { status: string }
    >;
    const status = await new Promise((resolve, reject) =>
      grpc.makeUnaryRequest(path, requestSerialize, responseDeserialize, { service: SERVICE }, (error, response) =>
        error ? reject(error) : resolve(response?.status),
      ),
    );
    expect(status).toBe('SERVING');
  });
});

/** Asks the reflection service one thing. */
async function reflect(version: 'v1' | 'v1alpha', request: object): Promise<Record<string, unknown>> {
  const loaded = loadSync(REFLECTION_PROTO);
  const service = loaded['grpc.reflection.v1.ServerReflection'] as Record<
    string,
    MethodDefinition<object, Record<string, unknown>>
  >;
  const method = service.ServerReflectionInfo;
  if (!method) throw new Error('no ServerReflectionInfo');
  const call = grpc.makeBidiStreamRequest(
    `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`,
    method.requestSerialize,
    method.responseDeserialize,
  );
  call.write(request);
  call.end();
  const [response] = await collect<Record<string, unknown>>(call);
  if (!response) throw new Error('no answer');
  return response;
}

/** The part of the reflection protocol that is used here, written down by hand. */
const REFLECTION_PROTO = new URL('./fixtures/reflection.proto', import.meta.url).pathname;

describe.each(['v1', 'v1alpha'] as const)('reflection %s', (version) => {
  it('lists the service', async () => {
    expect(await reflect(version, { listServices: '' })).toMatchObject({
      listServicesResponse: { service: expect.arrayContaining([{ name: SERVICE }]) },
    });
  });

  it.each([SERVICE, 'splitlearn.comm.v1.ComputeService.Compute', 'splitlearn.comm.v1.Tensor'])(
    'has the file that %s is in',
    async (symbol) => {
      const response = await reflect(version, { fileContainingSymbol: symbol });
      const { fileDescriptorProto } = response.fileDescriptorResponse as { fileDescriptorProto: Uint8Array[] };
      const files = fileDescriptorProto.map((bytes) => descriptor.FileDescriptorProto.decode(bytes));
      expect(files.map((file) => file.package)).toEqual(['splitlearn.comm.v1', 'google.protobuf']);
      expect(files[0]).toMatchObject({
        service: [
          {
            name: 'ComputeService',
            method: ['Compute', 'ComputeStream', 'GetServiceInfo', 'Exchange'].map((name) => ({ name })),
          },
        ],
        messageType: expect.arrayContaining([
          expect.objectContaining({
            name: 'ComputeRequest',
            field: ['request_id', 'model', 'inputs', 'parameters', 'outputs', 'output_encoding'].map((name, index) =>
              expect.objectContaining({ name, number: index + 1 }),
            ),
          }),
        ]),
      });
    },
  );

  it('has no file of what is not here', async () => {
    expect(await reflect(version, { fileContainingSymbol: 'no.such.Thing' })).toHaveProperty('errorResponse');
  });
});
