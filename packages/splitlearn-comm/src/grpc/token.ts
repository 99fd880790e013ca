import { CommError } from '../errors.js';

// Bearer tokens as metadata (https://www.rfc-editor.org/rfc/rfc6750#section-2.1).

/** The metadata key that carries a token. */
export const AUTHORIZATION = 'authorization';

/** What a header carries unchanged, and nobody reads as two values. */
const SENDABLE = /^[\x21-\x2b\x2d-\x7e]+$/;

/**
 * @throws CommError `INVALID_ARGUMENT`, naming the option and not the token, for what is no token: an empty one, or one
 * with spaces, commas, line breaks or characters beyond ASCII.
 */
export function assertToken(option: string, token: string): void {
  if (typeof token === 'string' && SENDABLE.test(token)) return;
  const found = token === '' ? 'it is empty' : typeof token === 'string' ? 'it has others' : `it is ${typeof token}`;
  throw new CommError(
    'INVALID_ARGUMENT',
    `${option} must be a text of ASCII letters, digits and signs, without spaces, commas and line breaks; ${found}`,
  );
}

/**
 * The value of `authorization` that carries a token.
 *
 * @throws CommError `INVALID_ARGUMENT` for what is no token.
 */
export function bearer(token: string): string {
  assertToken('token', token);
  return `Bearer ${token}`;
}

/** The token of a call, where it has one. */
export function tokenOf(metadata: Readonly<Record<string, string>>): string | undefined {
  return /^bearer +(\S+)$/i.exec(metadata[AUTHORIZATION] ?? '')?.[1];
}
