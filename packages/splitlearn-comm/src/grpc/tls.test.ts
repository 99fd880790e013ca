import { readFileSync } from 'node:fs';
import { Client, type handleUnaryCall, Server } from '@grpc/grpc-js';
import { describe, expect, it } from 'vitest';
import { rejection } from '../../test/support/deferred.js';
import { COMPUTE_SERVICE } from './service.js';
import { type ClientTlsOptions, clientCredentials, type ServerTlsOptions, serverCredentials } from './tls.js';

const fixtures = new URL('../../test/fixtures/tls/', import.meta.url);
const read = (name: string) => readFileSync(new URL(name, fixtures), 'utf8');
const ca = read('ca.pem');
const otherCa = read('other-ca.pem');
const server = { cert: read('server.pem'), key: read('server.key') };
const client = { cert: read('client.pem'), key: read('client.key') };
const stranger = { cert: read('other-client.pem'), key: read('other-client.key') };

/** Makes one call over TLS; what the server says of the caller's certificate, or why there was no answer. */
async function call(serverTls: ServerTlsOptions, clientTls: ClientTlsOptions, host = 'localhost'): Promise<string> {
  const grpcServer = new Server();
  const whoCalls: handleUnaryCall<Uint8Array, Uint8Array> = (call, callback) =>
    callback(null, Buffer.from(String(call.getAuthContext().sslPeerCertificate?.subject.CN ?? 'anonymous')));
  const { GetServiceInfo } = COMPUTE_SERVICE;
  grpcServer.addService({ GetServiceInfo }, { GetServiceInfo: whoCalls });
  const port = await new Promise<number>((resolve, reject) =>
    grpcServer.bindAsync('127.0.0.1:0', serverCredentials(serverTls), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
  const { credentials, channelOptions } = clientCredentials(clientTls);
  const grpcClient = new Client(`${host}:${port}`, credentials, channelOptions);
  const { path, requestSerialize, responseDeserialize } = GetServiceInfo;
  try {
    return await new Promise<string>((resolve, reject) =>
      grpcClient.makeUnaryRequest(path, requestSerialize, responseDeserialize, Buffer.of(), (error, answer) =>
        error ? reject(error) : resolve(String(answer)),
      ),
    );
  } finally {
    grpcClient.close();
    grpcServer.forceShutdown();
  }
}

describe('a call over TLS', () => {
  it('reaches a server whose authority the client trusts', async () => {
    expect(await call(server, { ca })).toBe('anonymous');
  });

  it('takes Buffers as it takes text', async () => {
    expect(await call({ cert: Buffer.from(server.cert), key: Buffer.from(server.key) }, { ca: Buffer.from(ca) })).toBe(
      'anonymous',
    );
  });

  it('takes a chain of certificates, and several authorities', async () => {
    expect(await call({ ...server, cert: `${server.cert}\n${ca}` }, { ca: `${otherCa}${ca}` })).toBe('anonymous');
  });

  it('is not made to a server of an authority that is not trusted', async () => {
    expect(await rejection(call(server, { ca: otherCa }))).toMatchObject({ code: 14 });
    expect(await rejection(call(server, {}))).toMatchObject({ code: 14 });
  });

  it('is not made to a server that has another name', async () => {
    const error = await rejection(call(server, { ca, serverName: 'gpu.example' }));
    expect(error).toMatchObject({
      code: 14,
      details: expect.stringContaining("does not match certificate's altnames"),
    });
  });

  it('reaches an IP address whose server is checked by another name', async () => {
    expect(await call(server, { ca, serverName: 'localhost' }, '127.0.0.1')).toBe('anonymous');
  });
});

describe('mutual TLS', () => {
  it('lets a client with a certificate of the authority in, and says who it is', async () => {
    expect(await call({ ...server, clientCa: ca }, { ca, ...client })).toBe('test client');
  });

  it('refuses a client without one', async () => {
    expect(await rejection(call({ ...server, clientCa: ca }, { ca }))).toMatchObject({ code: 14 });
  });

  it('refuses a client with one of another authority', async () => {
    expect(await rejection(call({ ...server, clientCa: ca }, { ca, ...stranger }))).toMatchObject({ code: 14 });
  });

  it('is the server to ask for: without clientCa nobody looks at what the client comes with', async () => {
    expect(await call(server, { ca, ...stranger })).toBe('anonymous');
  });
});

const noCertificate = 'is no certificate in PEM form; give the content of the file, not its path';
const noKey = 'is no private key in PEM form; give the content of the file, not its path';
const broken = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

describe('a server', () => {
  it.each<[string, Record<string, unknown>, string]>([
    ['a path instead of a certificate', { ...server, cert: '/etc/server.pem' }, `tls.cert ${noCertificate}`],
    ['a broken certificate', { ...server, cert: broken }, `tls.cert ${noCertificate}`],
    ['a broken certificate further on', { ...server, cert: server.cert + broken }, `tls.cert ${noCertificate}`],
    ['a key instead of a certificate', { ...server, cert: server.key }, `tls.cert ${noCertificate}`],
    ['no certificate', { key: server.key }, 'tls.cert must be PEM, a string or a Buffer; it is undefined'],
    ['no key', { cert: server.cert }, 'tls.key must be PEM, a string or a Buffer; it is undefined'],
    ['null', { ...server, key: null }, 'tls.key must be PEM, a string or a Buffer; it is null'],
    ['a certificate instead of a key', { ...server, key: server.cert }, `tls.key ${noKey}`],
    ['another key', { ...server, key: client.key }, 'tls.key is not the private key of tls.cert'],
    ['a key with a passphrase', { ...server, key: read('encrypted.key') }, 'tls.key has a passphrase'],
    ['an empty authority', { ...server, clientCa: '' }, `tls.clientCa ${noCertificate}`],
  ])('with %s is refused', (_, options, message) => {
    expect(() => serverCredentials(options as unknown as ServerTlsOptions)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });
});

describe('a client', () => {
  it.each<[string, Record<string, unknown>, string]>([
    ['a path instead of an authority', { ca: 'ca.pem' }, `tls.ca ${noCertificate}`],
    ['a certificate without its key', { cert: client.cert }, 'tls.key is missing'],
    ['a key without its certificate', { key: client.key }, 'tls.cert is missing'],
    ['another key', { ...client, key: server.key }, 'tls.key is not the private key of tls.cert'],
    [
      'a name with a port',
      { serverName: 'gpu.example:50051' },
      "tls.serverName must be a host name, such as gpu.example; it is 'gpu",
    ],
    ['an empty name', { serverName: '' }, 'tls.serverName must be a host name'],
  ])('with %s is refused', (_, options, message) => {
    expect(() => clientCredentials(options as ClientTlsOptions)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) }),
    );
  });

  it('checks the host of the address unless it is given a name', () => {
    expect(clientCredentials({}).channelOptions).toEqual({});
    expect(clientCredentials({ serverName: 'gpu.example' }).channelOptions).toEqual({
      'grpc.ssl_target_name_override': 'gpu.example',
      'grpc.default_authority': 'gpu.example',
    });
  });
});
