import { Metadata, type ServiceError, type StatusObject, status } from '@grpc/grpc-js';
import { CommError, type CommErrorCode } from '../errors.js';

// The one file that maps errors to gRPC statuses and back.

const REASON = 'splitlearn-reason';
/** https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback */
const PUSHBACK = 'grpc-retry-pushback-ms';

/** A gRPC status as an error or a response's end carries it. */
export type CallStatus = Pick<StatusObject, 'code' | 'details' | 'metadata'>;

/** What the caller sees of an error. An error that is no `CommError` keeps its message to itself. */
export function toStatus(error: unknown): CallStatus {
  const { code, message, reason, retryAfterMs } = CommError.from(error);
  const metadata = new Metadata();
  if (reason !== undefined) metadata.set(REASON, reason);
  if (retryAfterMs !== undefined) metadata.set(PUSHBACK, String(Math.ceil(retryAfterMs)));
  return { code: status[code], details: message, metadata };
}

/** The error that a status means to the caller at `address`. */
export function fromStatus({ code, details, metadata }: CallStatus, address: string): CommError {
  const name = (status[code] ?? 'UNKNOWN') as CommErrorCode;
  const reason = firstText(metadata, REASON);
  const pushbackMs = Number(firstText(metadata, PUSHBACK) ?? Number.NaN);
  return new CommError(name, reason ? details : explain(name, details, address), {
    ...(reason !== undefined && { reason }),
    ...(pushbackMs >= 0 && { retryAfterMs: pushbackMs }),
  });
}

export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}

/** The statuses that gRPC itself makes say little; add whom they are about and what to do. */
function explain(code: CommErrorCode, details: string, address: string): string {
  switch (code) {
    case 'UNAVAILABLE':
      return `the server at ${address} cannot be reached, or went away (${details}); check that it runs and try again`;
    case 'DEADLINE_EXCEEDED':
      return `the server at ${address} gave no answer in time (${details}); raise timeoutMs if the work may take longer`;
    case 'UNIMPLEMENTED':
      return `the server at ${address} does not offer this call (${details}); is it a SplitLearn compute server?`;
    default:
      return details;
  }
}

function firstText(metadata: Metadata, key: string): string | undefined {
  const value = metadata.get(key)[0];
  return value === undefined ? undefined : String(value);
}
