import { inspect } from 'node:util';

/**
 * What went wrong, as a stable string: match on this, never on the message. The codes are gRPC's
 * (https://grpc.io/docs/guides/status-codes/), and mean what they mean there.
 */
export type CommErrorCode =
  | 'CANCELLED'
  | 'UNKNOWN'
  | 'INVALID_ARGUMENT'
  | 'DEADLINE_EXCEEDED'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED'
  | 'FAILED_PRECONDITION'
  | 'ABORTED'
  | 'OUT_OF_RANGE'
  | 'UNIMPLEMENTED'
  | 'INTERNAL'
  | 'UNAVAILABLE'
  | 'DATA_LOSS'
  | 'UNAUTHENTICATED';

export interface CommErrorOptions {
  /** What lies behind this error. Stays in the process: it is never sent to a caller. */
  readonly cause?: unknown;
  /** A narrower, stable, machine-readable name for the error, such as `QUEUE_FULL`. Travels to the caller. */
  readonly reason?: string;
  /** Milliseconds after which it is worth trying again. Travels to the caller. */
  readonly retryAfterMs?: number;
}

const brand = Symbol.for('splitlearn.comm.CommError');

/**
 * The one error class of `@splitlearn/comm`. A compute function that throws a `CommError` chooses the code, reason
 * and message that its caller sees; anything else it throws reaches the caller as `INTERNAL`, without its message.
 */
export class CommError extends Error {
  /** @see CommErrorCode */
  readonly code: CommErrorCode;
  /** A narrower, stable name for the error, where there is one. */
  readonly reason: string | undefined;
  /** Milliseconds after which it is worth trying again, where the thrower knows. */
  readonly retryAfterMs: number | undefined;

  constructor(code: CommErrorCode, message: string, options: CommErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CommError';
    this.code = code;
    this.reason = options.reason;
    this.retryAfterMs = options.retryAfterMs;
    Object.defineProperty(this, brand, { value: true });
  }

  /**
   * Whether the same call may succeed when it is made again: the server could not be reached or went away
   * (`UNAVAILABLE`), or it was too busy and said when to come back (`RESOURCE_EXHAUSTED` with `retryAfterMs`).
   */
  get retryable(): boolean {
    return this.code === 'UNAVAILABLE' || (this.code === 'RESOURCE_EXHAUSTED' && this.retryAfterMs !== undefined);
  }

  /**
   * What an error is to a caller: itself when it is a `CommError`; what its method `toCommError()` gives, where it has
   * one, so that other packages can have error classes of their own; else `INTERNAL`, with the error as its `cause`.
   */
  static from(error: unknown): CommError {
    return knownError(error) ?? new CommError('INTERNAL', 'internal error', { cause: error });
  }

  /** True for a `CommError` of any copy of this package, so that two installed versions understand each other. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    // biome-ignore lint/complexity/noThisInStatic: a class that extends this one inherits this, but not all its instances
    if (this !== CommError) return super[Symbol.hasInstance](value);
    return typeof value === 'object' && value !== null && brand in value;
  }
}

/** The `CommError` that an error is or can be turned into; `undefined` for an unexpected one. */
export function knownError(error: unknown): CommError | undefined {
  if (error instanceof CommError) return error;
  if (!(error instanceof Error && 'toCommError' in error && typeof error.toCommError === 'function')) return undefined;
  const known: unknown = error.toCommError();
  return known instanceof CommError ? known : undefined;
}

/** An error in a form that survives a message between threads or processes, which keeps no classes. */
export interface PlainError {
  readonly message: string;
  readonly code?: CommErrorCode;
  readonly reason?: string;
  readonly retryAfterMs?: number;
  readonly stack?: string;
}

/** Turns any thrown value into a {@link PlainError}. */
export function errorToPlain(error: unknown): PlainError {
  if (!(error instanceof Error)) return { message: textOf(error) };
  const known = knownError(error);
  return {
    message: textOf((known ?? error).message),
    ...(typeof error.stack === 'string' && { stack: error.stack }),
    ...(known && {
      code: known.code,
      ...(known.reason !== undefined && { reason: known.reason }),
      ...(known.retryAfterMs !== undefined && { retryAfterMs: known.retryAfterMs }),
    }),
  };
}

/** Text of whatever was thrown: `String()` throws for an object without a prototype, and says nothing of any other. */
function textOf(value: unknown): string {
  return typeof value === 'string' ? value : inspect(value);
}

/** The inverse of {@link errorToPlain}: a `CommError` comes back as one, anything else as an `Error`. */
export function errorFromPlain(plain: PlainError): Error {
  const error = plain.code === undefined ? new Error(plain.message) : new CommError(plain.code, plain.message, plain);
  if (plain.stack !== undefined) error.stack = plain.stack;
  return error;
}
