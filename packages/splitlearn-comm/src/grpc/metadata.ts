import { Metadata } from '@grpc/grpc-js';
import { CommError } from '../errors.js';

// Text metadata, which is HTTP/2 headers.

/** Headers that belong to one connection or request: HTTP/2 refuses most of them, and grpc-js then tries without end. */
const CONNECTION =
  /^(:.*|connection|keep-alive|proxy-connection|transfer-encoding|upgrade|http2-settings|content-length)$/;
/** What the transport itself sends, and no caller put there. */
const TRANSPORT = /^(grpc-|(user-agent|content-type|host|te)$)/;

/** @throws CommError `INVALID_ARGUMENT` for a name or value that cannot be a header. */
export function toMetadata(headers: Readonly<Record<string, string>>): Metadata {
  const metadata = new Metadata();
  for (const [name, value] of Object.entries(headers)) {
    if (CONNECTION.test(name.toLowerCase()))
      throw unsendable(name, 'the connection itself uses this name; choose another');
    try {
      metadata.set(name, value);
    } catch (cause) {
      throw unsendable(name, (cause as Error).message, cause);
    }
  }
  return metadata;
}

/** What the caller sent along, without what the transport added. */
export function fromMetadata(metadata: Metadata): Readonly<Record<string, string>> {
  const entries = Object.entries(metadata.getMap()).filter(
    (entry): entry is [string, string] =>
      typeof entry[1] === 'string' && !TRANSPORT.test(entry[0]) && !CONNECTION.test(entry[0]),
  );
  return Object.fromEntries(entries);
}

function unsendable(name: string, why: string, cause?: unknown): CommError {
  return new CommError('INVALID_ARGUMENT', `metadata '${name}' cannot be sent: ${why}`, { cause });
}
