import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import { ChannelCredentials, type ChannelOptions, ServerCredentials } from '@grpc/grpc-js';
import { CommError } from '../errors.js';

/** Text in PEM form: the content of a `.pem`, `.crt` or `.key` file, not its path. */
export type Pem = string | Uint8Array;

/** How a server proves who it is, and whether its clients have to. */
export interface ServerTlsOptions {
  /** The server's certificate, followed by those of the authorities between it and the root, if any. */
  readonly cert: Pem;
  /** The private key of `cert`, without a passphrase. */
  readonly key: Pem;
  /**
   * The authorities whose certificates clients may come with. Given, TLS is mutual: a client without such a certificate
   * is refused while it connects, and sees `UNAVAILABLE`. Default: clients need no certificate.
   */
  readonly clientCa?: Pem;
}

/** How a client knows its server, and proves who it is where the server asks. */
export interface ClientTlsOptions {
  /**
   * The authorities whose certificates servers may come with. Default: those that Node.js trusts, which
   * `NODE_EXTRA_CA_CERTS` adds to; a server with another certificate cannot be reached (`UNAVAILABLE`).
   */
  readonly ca?: Pem;
  /** The client's certificate, for servers that ask for one (mutual TLS). Needs `key`. */
  readonly cert?: Pem;
  /** The private key of `cert`, without a passphrase. */
  readonly key?: Pem;
  /**
   * The name that the server's certificate has to be for, and that is sent along as the server's. Default: the host of
   * the address. Worth giving where the address is an IP address, which Node.js warns of (DEP0123) as a TLS name, or
   * that of a relay.
   */
  readonly serverName?: string;
}

/** What a gRPC client is made with. */
export interface ClientCredentials {
  readonly credentials: ChannelCredentials;
  readonly channelOptions: ChannelOptions;
}

/** @throws CommError `INVALID_ARGUMENT`, naming the option, for what is no PEM, or a key that is not the certificate's. */
export function serverCredentials({ cert, key, clientCa }: ServerTlsOptions): ServerCredentials {
  assertPair(cert, key);
  if (clientCa !== undefined) certificates('clientCa', clientCa);
  return usable(() => {
    const ca = clientCa === undefined ? null : toBuffer(clientCa);
    // grpc-js reads them when it binds, with less to say about what is wrong.
    createSecureContext({ cert: toBuffer(cert), key: toBuffer(key), ...(ca && { ca }) });
    const pair = { cert_chain: toBuffer(cert), private_key: toBuffer(key) };
    return ServerCredentials.createSsl(ca, [pair], ca !== null);
  });
}

/**
 * @throws CommError `INVALID_ARGUMENT`, naming the option, for what is no PEM, a key that is not the certificate's or
 * that comes without one, and a name that is none.
 */
export function clientCredentials({ ca, cert, key, serverName }: ClientTlsOptions): ClientCredentials {
  if (ca !== undefined) certificates('ca', ca);
  if (cert !== undefined || key !== undefined) {
    if (key === undefined) throw invalid('key', 'is missing: tls.cert needs its private key');
    if (cert === undefined) throw invalid('cert', 'is missing: tls.key needs the certificate that it belongs to');
    assertPair(cert, key);
  }
  if (serverName !== undefined && !(typeof serverName === 'string' && /^[^\s:/]+$/.test(serverName))) {
    throw invalid('serverName', `must be a host name, such as gpu.example; it is '${String(serverName)}'`);
  }
  return {
    credentials: usable(() => ChannelCredentials.createSsl(orNull(ca), orNull(key), orNull(cert))),
    channelOptions:
      serverName === undefined
        ? {}
        : { 'grpc.ssl_target_name_override': serverName, 'grpc.default_authority': serverName },
  };
}

function assertPair(cert: Pem, key: Pem): void {
  const [own] = certificates('cert', cert);
  if (!own.checkPrivateKey(privateKey('key', key))) {
    throw invalid('key', 'is not the private key of tls.cert, whose first certificate must be the own one');
  }
}

function certificates(option: string, pem: Pem): [X509Certificate, ...X509Certificate[]] {
  const [first, ...others] =
    toText(option, pem).match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (first === undefined) throw noPem(option, 'certificate');
  try {
    return [new X509Certificate(first), ...others.map((other) => new X509Certificate(other))];
  } catch (cause) {
    throw noPem(option, 'certificate', cause);
  }
}

function privateKey(option: string, pem: Pem): KeyObject {
  const text = toText(option, pem);
  if (/ENCRYPTED/.test(text)) {
    throw invalid(option, 'has a passphrase; give it without one (openssl pkey -in encrypted.key -out plain.key)');
  }
  try {
    return createPrivateKey(text);
  } catch (cause) {
    throw noPem(option, 'private key', cause);
  }
}

/** What OpenSSL refuses although it can be read: a key that is too short, a cipher list of the environment. */
function usable<T>(make: () => T): T {
  try {
    return make();
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new CommError('INVALID_ARGUMENT', `tls cannot be used: ${why}`, { cause });
  }
}

function toText(option: string, pem: Pem): string {
  if (typeof pem === 'string') return pem;
  if (pem instanceof Uint8Array) return toBuffer(pem).toString('latin1');
  throw invalid(option, `must be PEM, a string or a Buffer; it is ${pem === null ? 'null' : typeof pem}`);
}

function toBuffer(pem: Pem): Buffer {
  return typeof pem === 'string' ? Buffer.from(pem) : Buffer.from(pem.buffer, pem.byteOffset, pem.byteLength);
}

function orNull(pem: Pem | undefined): Buffer | null {
  return pem === undefined ? null : toBuffer(pem);
}

function noPem(option: string, kind: string, cause?: unknown): CommError {
  return invalid(option, `is no ${kind} in PEM form; give the content of the file, not its path`, cause);
}

function invalid(option: string, message: string, cause?: unknown): CommError {
  return new CommError('INVALID_ARGUMENT', `tls.${option} ${message}`, { cause });
}
