import { hash, timingSafeEqual } from 'node:crypto';
import { BlockList, isIP } from 'node:net';
import type { PeerCertificate } from 'node:tls';
import { CommError, errorToPlain, knownError } from '../errors.js';
import type { ServerTlsOptions } from '../grpc/tls.js';
import { assertToken, tokenOf } from '../grpc/token.js';
import type { Logger } from '../logger.js';

/** What a call asks for: an answer, a session, or what the server serves. */
export type AuthorizedMethod = 'compute' | 'stream' | 'info';

/** What is known of a call before anything of its content is read. */
export interface AuthorizedCall {
  readonly method: AuthorizedMethod;
  /** What the caller sent along, its `authorization` among it. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The caller's address, such as `10.0.0.7:51234`; `unknown` on a unix socket. */
  readonly peer: string;
  /** The caller's certificate, with mutual TLS (`tls.clientCa`). */
  readonly certificate?: PeerCertificate | undefined;
}

/** Who may call a server. With both options a call needs a token, and then `authorize` is asked. */
export interface AuthOptions {
  /**
   * Callers have to send one of these, as the `token` option of the client or as metadata `authorization: Bearer …`; else
   * `UNAUTHENTICATED`. Several, so that a new one can be handed out before the old one is taken back. Tokens travel in
   * the clear without TLS. Default: none are asked for.
   */
  readonly tokens?: readonly string[];
  /**
   * Asked once for every call, before its content is decoded; a call that it refuses costs no more than itself. Refuses
   * by throwing (or rejecting with) a `CommError`, which the caller sees. Any other error is logged, and the caller sees
   * `PERMISSION_DENIED` without its message, as it does where JavaScript answers `false`. Default: everyone may call.
   */
  readonly authorize?: (call: AuthorizedCall) => void | Promise<void>;
}

/** Decides which calls a server answers. */
export class Authorization {
  readonly #digests: readonly Buffer[];
  readonly #authorize: AuthOptions['authorize'];
  readonly #logger: Logger;
  #lastAccepted: AuthorizedCall['metadata'] | undefined;

  /** @throws CommError `INVALID_ARGUMENT` for an empty list of tokens, what is no token, and a hook that is no function. */
  constructor({ tokens, authorize }: AuthOptions, logger: Logger) {
    if (tokens?.length === 0) {
      throw new CommError(
        'INVALID_ARGUMENT',
        'auth.tokens is empty, and nobody could call; leave it out to ask for no token',
      );
    }
    tokens?.forEach((token, index) => {
      assertToken(`auth.tokens[${index}]`, token);
    });
    if (authorize !== undefined && typeof authorize !== 'function') {
      throw new CommError('INVALID_ARGUMENT', `auth.authorize must be a function; it is ${typeof authorize}`);
    }
    this.#digests = tokens?.map(digest) ?? [];
    this.#authorize = authorize;
    this.#logger = logger;
  }

  /**
   * Lets a call pass, or throws. Without a hook, or with one that answers at once, there is no promise to wait for.
   *
   * @returns a promise only where the hook gives one; it rejects with what is thrown else.
   * @throws CommError `UNAUTHENTICATED` for a call without a token of the list; `PERMISSION_DENIED`, or whatever the
   * hook throws, for one that the hook refuses.
   */
  check(call: AuthorizedCall): void | Promise<void> {
    if (this.#digests.length > 0) this.#assertToken(call.metadata);
    if (this.#authorize) return this.#ask(this.#authorize, call);
  }

  /** Says the same of a missing and of a wrong token, and takes as long for every wrong one. */
  #assertToken(metadata: AuthorizedCall['metadata']): void {
    // Calls that share a connection share what was said when it was opened, and need not be asked twice.
    if (metadata === this.#lastAccepted) return;
    const given = digest(tokenOf(metadata) ?? '');
    let matches = 0;
    // Every one is looked at: how long it takes must not say which one was almost right.
    for (const own of this.#digests) matches |= Number(timingSafeEqual(own, given));
    if (matches === 0) {
      throw new CommError(
        'UNAUTHENTICATED',
        'this server asks for a token; give one that it knows as the `token` option of the client',
      );
    }
    this.#lastAccepted = metadata;
  }

  #ask(authorize: NonNullable<AuthOptions['authorize']>, asked: AuthorizedCall) {
    const fail = (error: unknown): never => {
      throw knownError(error) ?? this.#unexpected(error, asked);
    };
    try {
      const answer: unknown = authorize(asked);
      // Whatever else it is, a promise of any kind or a `false`, is asked what it comes to.
      if (answer !== undefined) return Promise.resolve(answer).then(accept).catch(fail);
    } catch (error) {
      fail(error);
    }
    return undefined;
  }

  #unexpected(error: unknown, { method, peer }: AuthorizedCall): CommError {
    const { stack, message } = errorToPlain(error);
    this.#logger.error(`auth.authorize failed for a call (${method}) of ${peer}: ${stack ?? message}`);
    return denied(error);
  }
}

/** A hook that answers `false` means no, though its type has no such answer. */
function accept(answer: unknown): void {
  if (answer === false) throw denied();
}

function denied(cause?: unknown): CommError {
  return new CommError('PERMISSION_DENIED', 'this server does not allow the call', { cause });
}

/** Of one length, whatever the token's: `timingSafeEqual` compares nothing else. */
function digest(token: string): Buffer {
  return hash('sha256', token, 'buffer');
}

/**
 * What to warn of when a server listens where other machines may reach it, but has no TLS, or asks nobody who they are.
 *
 * @param host - What it listens on: a name, an address (an IPv6 one also in brackets), or `unix:` and a path.
 * @returns nothing for this machine's own addresses (127.0.0.0/8, ::1, localhost), a unix socket, and a server that has both.
 */
export function unsafeBindWarning(
  host: string,
  { tls, auth }: { readonly tls?: ServerTlsOptions | undefined; readonly auth?: AuthOptions | undefined },
): string | undefined {
  if (isLoopback(host)) return undefined;
  const asks = tls?.clientCa !== undefined || auth?.tokens !== undefined || auth?.authorize !== undefined;
  if (tls && asks) return undefined;
  const open = asks ? '' : 'anyone who can reach it may call it (give auth.tokens, or tls.clientCa)';
  const clear = tls ? '' : 'what it is sent can be read and changed on the way (give tls)';
  const dangers = [open, clear].filter(Boolean).join(', and ');
  return `the server listens on ${host}, beyond this machine: ${dangers}; or listen on 127.0.0.1`;
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8);
LOOPBACK.addAddress('::1', 'ipv6');

function isLoopback(host: string): boolean {
  if (host.startsWith('unix:') || /^localhost\.?$/i.test(host)) return true;
  const address = host.replace(/^\[(.*)\]$/, '$1');
  const family = isIP(address);
  return family !== 0 && LOOPBACK.check(address, family === 6 ? 'ipv6' : 'ipv4');
}
