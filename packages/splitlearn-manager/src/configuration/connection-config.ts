import type { AuthOptions, Pem, ServerLimits, ServerTlsOptions } from '@splitlearn/comm';
import { z } from 'zod';

/** What is sent as a bearer token: comm takes nothing else. */
const SENDABLE = /^[\x21-\x2b\x2d-\x7e]+$/;

/** A text that callers prove themselves with; it travels in a header. */
const Token = z
  .string()
  .regex(SENDABLE, 'must be ASCII letters, digits and signs, without spaces, commas and line breaks, and not empty');

const ms = z.number().min(0);
/** Zod takes no infinite number for a number. */
const msOrNever = z.union([ms, z.literal(Number.POSITIVE_INFINITY)]);
const moreThanNoMs = z.union([z.number().positive(), z.literal(Number.POSITIVE_INFINITY)]);

const pem = z.custom<Pem>((value) => typeof value === 'string' || value instanceof Uint8Array, {
  message: 'must be the content of a PEM file, as text or a Buffer',
});

/** Limits of connections, and of the calls on them: comm's `ServerLimits`. Whatever is left out has comm's default. */
export const LimitsConfig = z.strictObject({
  /** How many connections there may be at once; further ones are closed as they come. Default 1024. */
  maxConnections: z.int().min(1).optional(),
  /** Milliseconds from a connection's beginning until it speaks HTTP/2. Default 10000; infinity for no limit. */
  handshakeTimeoutMs: moreThanNoMs.optional(),
  /** How many calls and sessions one connection may have at once. Default 1024. */
  maxStreamsPerConnection: z
    .int()
    .min(1)
    .max(2 ** 32 - 1)
    .optional(),
  /** How much metadata a call may have, in bytes. Default 16384. */
  maxMetadataBytes: z
    .int()
    .min(1024)
    .max(2 ** 22)
    .optional(),
  /** Milliseconds after which a call is ended whose peer is stuck. Default 30000; infinity for no limit. */
  slowPeerTimeoutMs: moreThanNoMs.optional(),
  /** Milliseconds of silence after which a connection is asked for a sign of life. Default 60000; infinity for never. */
  silentPeerTimeoutMs: moreThanNoMs.optional(),
  /** Calls that may be open on one Exchange. Default 1024. */
  maxCallsPerConnection: z
    .int()
    .min(1)
    .max(2 ** 32 - 1)
    .optional(),
  /** Bytes of requests that may be held at once, over all Exchanges. Default 1 GiB. */
  maxRequestBytes: z.int().min(1).optional(),
  /** Milliseconds without a sign of a client that has calls open, until it is asked for one. Default 30000; infinity for never. */
  keepAliveMs: msOrNever.optional(),
});

/** TLS with the content of the files: comm's `ServerTlsOptions`. */
export const TlsConfig = z.strictObject({
  /** The server's certificate, followed by those of the authorities between it and the root. */
  cert: pem,
  /** The private key of `cert`, without a passphrase. */
  key: pem,
  /** The authorities whose certificates clients have to come with (mutual TLS). Default: clients need none. */
  clientCa: pem.optional(),
});

/** TLS as a configuration file has it. */
export const TlsFiles = z.strictObject({
  /** The path of the server's certificate in PEM form, relative to the configuration file. */
  cert: z.string().min(1),
  /** The path of the certificate's private key, without a passphrase, relative to the configuration file. */
  key: z.string().min(1),
  /** The path of the authorities whose certificates clients have to come with (mutual TLS). Default: clients need none. */
  clientCa: z.string().min(1).optional(),
});

/** Who may call, as a configuration file has it. */
export const AuthFile = z.strictObject({
  /** Callers have to send one of these; several, so that a new one can be handed out before the old one is taken back. */
  tokens: z.array(Token).min(1),
});

/** Who may call: comm's `AuthOptions`. */
export const AuthConfig = z.strictObject({
  /** Callers have to send one of these. Default: none are asked for. */
  tokens: z.array(Token).min(1).optional(),
  /** Asked once for every call, before its content is decoded. Default: everyone may call. */
  authorize: z
    .custom<NonNullable<AuthOptions['authorize']>>((value) => typeof value === 'function', {
      message: 'must be a function',
    })
    .optional(),
});

/** The server for people and machines that watch: health, metrics, and with a token also changes. */
export const AdminConfig = z.strictObject({
  /** The address that the admin server listens on. Default `127.0.0.1`: this machine only. */
  host: z.string().min(1).default('127.0.0.1'),
  /** The port that the admin server listens on; 0 for any that is free. Default 50052. */
  port: z.int().min(0).max(65535).default(50_052),
  /** What callers have to send to change anything. Default: none, and nothing can be changed. */
  token: Token.optional(),
});

/** How a server's connections are made: what comm's server takes. */
interface ConnectionOptions {
  readonly tls?: ServerTlsOptions;
  readonly auth?: AuthOptions;
  readonly limits?: ServerLimits;
}

/** What comm's server takes of a server's configuration: without fields that are `undefined`. */
export function connectionOptions(config: {
  readonly tls?: z.output<typeof TlsConfig> | undefined;
  readonly auth?: z.output<typeof AuthConfig> | undefined;
  readonly limits?: z.output<typeof LimitsConfig> | undefined;
}): ConnectionOptions {
  const { tls, auth, limits } = config;
  return defined({
    tls: tls && (defined(tls) as ServerTlsOptions),
    auth: auth && (defined(auth) as AuthOptions),
    limits: limits && (defined(limits) as ServerLimits),
  }) as ConnectionOptions;
}

function defined(fields: object): object {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
