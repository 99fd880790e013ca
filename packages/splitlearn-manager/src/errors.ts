import { CommError, type CommErrorCode } from '@splitlearn/comm/model';

/** What each {@link ManagerErrorCode} is to a caller on the other side of a connection. */
const commCodes = {
  /** The configuration of a model or server is wrong. */
  INVALID_CONFIG: 'INVALID_ARGUMENT',
  /** The model's name is no catalogue entry, file or folder. */
  SOURCE_NOT_FOUND: 'NOT_FOUND',
  /** The model's files are there, but are no model that an engine can load. */
  SOURCE_INVALID: 'FAILED_PRECONDITION',
  /** The hub cannot be reached, or may not be (`HF_HUB_OFFLINE`), and the cache has not what is needed. */
  SOURCE_UNAVAILABLE: 'UNAVAILABLE',
  /** The hub wants a token, or one with more rights: the repository is gated or private. */
  SOURCE_ACCESS_DENIED: 'PERMISSION_DENIED',
  /** What was downloaded is not what the hub says it is, again and again. */
  SOURCE_CORRUPT: 'UNAVAILABLE',
  /** The model's files do not fit on the disk. */
  INSUFFICIENT_DISK: 'FAILED_PRECONDITION',
  /** The model's files are not those of the lockfile, and `frozen` says that they must be. */
  LOCKFILE_MISMATCH: 'FAILED_PRECONDITION',
  /** The device is not there, or its runtime is not. */
  DEVICE_UNAVAILABLE: 'FAILED_PRECONDITION',
  /** No model of that id is loaded. */
  MODEL_NOT_FOUND: 'NOT_FOUND',
  /** The request names no model, and there is not exactly one. */
  MODEL_AMBIGUOUS: 'INVALID_ARGUMENT',
  /** A model of that id is loaded already. */
  MODEL_ALREADY_LOADED: 'ALREADY_EXISTS',
  /** The model could not be loaded. */
  MODEL_LOAD_FAILED: 'FAILED_PRECONDITION',
  /** The model is being unloaded. */
  MODEL_DRAINING: 'UNAVAILABLE',
  /** The model's process ended while it had work. The next request gets a new process. */
  MODEL_CRASHED: 'UNAVAILABLE',
  /** The model's process took more memory than `maxMemoryBytes` and was ended. The next request gets a new process. */
  MODEL_MEMORY_EXCEEDED: 'RESOURCE_EXHAUSTED',
  /** The model's process has ended by itself again and again. It is not started any more until `reloadModel`. */
  MODEL_FAILED: 'UNAVAILABLE',
  /** As many models are loaded as `maxModels` allows. */
  TOO_MANY_MODELS: 'FAILED_PRECONDITION',
  /** The model does not fit into the memory that is left. */
  INSUFFICIENT_MEMORY: 'FAILED_PRECONDITION',
  /** An input, a parameter or an output's name is not what the model takes. */
  INVALID_INPUT: 'INVALID_ARGUMENT',
  /** The prompt is longer than the model's context. */
  CONTEXT_LENGTH_EXCEEDED: 'INVALID_ARGUMENT',
  /** The runtime refused the run; the input is most likely wrong in a way that only the model knows. */
  INFERENCE_FAILED: 'INVALID_ARGUMENT',
  /** The manager or server was shut down. */
  SHUT_DOWN: 'UNAVAILABLE',
} as const satisfies Record<string, CommErrorCode>;

/** What went wrong, as a stable string: match on this, never on the message. */
export type ManagerErrorCode = keyof typeof commCodes;

/**
 * The one error class of `@splitlearn/manager`. A client of the server sees it as a `CommError` with the manager's
 * code as its `reason`.
 */
export class ManagerError extends Error {
  readonly code: ManagerErrorCode;

  constructor(code: ManagerErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ManagerError';
    this.code = code;
  }

  /** How a caller on the other side of a connection sees this error. */
  toCommError(): CommError {
    return new CommError(commCodes[this.code], this.message, { reason: this.code, cause: this });
  }

  /** The manager's error that a `CommError` was made of on the other side of a connection, or the error as it is. */
  static fromCommError(error: unknown): unknown {
    if (!(error instanceof CommError) || !error.reason || !Object.hasOwn(commCodes, error.reason)) return error;
    return new ManagerError(error.reason as ManagerErrorCode, error.message, { cause: error });
  }
}
