import { EXIT, type ExitCode } from './exit-codes.js';

/** What a command ends with when it cannot do what it was asked to. */
export class CliError extends Error {
  readonly exitCode: ExitCode;
  /** Stable, for `--json`. */
  readonly code: string;

  constructor(exitCode: ExitCode, code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CliError';
    this.exitCode = exitCode;
    this.code = code;
  }
}

/** A failure as it is told. */
interface Failure {
  readonly code: string;
  readonly message: string;
  readonly exitCode: ExitCode;
}

/** By the codes of ManagerError and CommError. Whatever is not here is FAILED. */
const EXIT_CODES: Readonly<Record<string, ExitCode>> = {
  INVALID_CONFIG: EXIT.USAGE,
  INVALID_INPUT: EXIT.USAGE,
  MODEL_AMBIGUOUS: EXIT.USAGE,
  CONTEXT_LENGTH_EXCEEDED: EXIT.USAGE,
  INVALID_ARGUMENT: EXIT.USAGE,
  SOURCE_NOT_FOUND: EXIT.NOT_FOUND,
  MODEL_NOT_FOUND: EXIT.NOT_FOUND,
  ROUTE_NOT_FOUND: EXIT.NOT_FOUND,
  NOT_FOUND: EXIT.NOT_FOUND,
  SOURCE_UNAVAILABLE: EXIT.UNREACHABLE,
  UNAVAILABLE: EXIT.UNREACHABLE,
  SOURCE_ACCESS_DENIED: EXIT.DENIED,
  PERMISSION_DENIED: EXIT.DENIED,
  UNAUTHENTICATED: EXIT.DENIED,
  ADMIN_TOKEN_MISSING: EXIT.DENIED,
  INVALID_REQUEST: EXIT.USAGE,
  INSUFFICIENT_DISK: EXIT.NO_ROOM,
  INSUFFICIENT_MEMORY: EXIT.NO_ROOM,
  TOO_MANY_MODELS: EXIT.NO_ROOM,
  MODEL_MEMORY_EXCEEDED: EXIT.NO_ROOM,
  RESOURCE_EXHAUSTED: EXIT.NO_ROOM,
  DEADLINE_EXCEEDED: EXIT.TIMED_OUT,
};

/** @returns the exit code of an error's stable code; `undefined` for a code that says nothing. */
export function exitCodeOf(code: string): ExitCode | undefined {
  return Object.hasOwn(EXIT_CODES, code) ? EXIT_CODES[code] : undefined;
}

/** What an error is to whoever runs the program. */
export function describeFailure(error: unknown): Failure {
  if (error instanceof CliError) return error;
  if (!(error instanceof Error)) return { code: 'FAILED', message: String(error), exitCode: EXIT.FAILED };
  const { reason, code } = error as { reason?: unknown; code?: unknown };
  const codes = [reason, code].filter((one): one is string => typeof one === 'string');
  const exitCode = codes.map(exitCodeOf).find((found) => found !== undefined) ?? EXIT.FAILED;
  return { code: codes[0] ?? 'FAILED', message: error.message, exitCode };
}
