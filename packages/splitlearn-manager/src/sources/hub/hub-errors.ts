import { ManagerError } from '../../errors.js';

/** A failure that the next attempt may not meet. Never leaves this folder. */
export class TransientFailure extends Error {
  /** Milliseconds that the hub asks to wait before the next attempt. */
  readonly retryAfterMs: number | undefined;

  constructor(message: string, options: ErrorOptions & { readonly retryAfterMs?: number | undefined } = {}) {
    super(message, options);
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** Whom and what a request is about, for the messages of its errors. */
export interface RequestSubject {
  readonly endpoint: string;
  readonly repository: string;
  readonly revision: string;
  /** The file that is asked for; absent for what the hub knows of the repository itself. */
  readonly file?: string;
}

/**
 * What an answer other than a success means.
 *
 * For a repository that does not exist the hub answers 401, not 404, to whoever has no token, so that nobody learns
 * the names of private ones; `X-Error-Code` says more where it is there.
 */
export function refusal(response: Response, subject: RequestSubject): ManagerError | TransientFailure {
  const { status, headers } = response;
  const { endpoint, repository, revision, file } = subject;
  const page = `${endpoint}/${repository}`;
  const code = headers.get('x-error-code');
  if (status === 408 || status === 429 || status >= 500) {
    return new TransientFailure(`it answered ${status}`, { retryAfterMs: retryAfter(headers) });
  }
  if (code === 'GatedRepo' || status === 403) {
    return new ManagerError(
      'SOURCE_ACCESS_DENIED',
      `the repository '${repository}' may not be read (status ${status}): accept its terms at ${page}, and set HF_TOKEN ` +
        `to a token of the account that did`,
    );
  }
  if (code === 'RevisionNotFound') {
    return new ManagerError(
      'SOURCE_NOT_FOUND',
      `the repository '${repository}' has no revision '${revision}'; its branches, tags and commits are at ${page}/tree/main`,
    );
  }
  if (status === 404 || code === 'RepoNotFound') {
    const what = file === undefined ? `'${repository}' at the revision '${revision}'` : `'${file}' in '${repository}'`;
    return new ManagerError(
      'SOURCE_NOT_FOUND',
      `the hub has no ${what} (status ${status}); check the spelling of the name and the revision at ${page}, and set ` +
        `HF_TOKEN if the repository is private`,
    );
  }
  if (status === 401) {
    return new ManagerError(
      'SOURCE_ACCESS_DENIED',
      `the repository '${repository}' may not be read (status 401): it is private or gated, or is not there at all; ` +
        `check the spelling at ${page}, accept its terms there if it has any, and set HF_TOKEN to a valid token`,
    );
  }
  return new ManagerError(
    'SOURCE_UNAVAILABLE',
    `the hub at ${endpoint} answered ${status} for '${repository}'; check HF_ENDPOINT`,
  );
}

/** @returns the error of a hub that could not be reached, for a caller who has nothing in the cache to fall back on. */
export function unavailable({ endpoint, repository, file }: RequestSubject, cause: unknown): ManagerError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const what = file === undefined ? `'${repository}'` : `'${file}' of '${repository}'`;
  return new ManagerError(
    'SOURCE_UNAVAILABLE',
    `${what} could not be fetched from the hub at ${endpoint}: ${reason}; check the connection and HF_ENDPOINT, or put ` +
      `the model into the cache on a machine that reaches the hub`,
    { cause },
  );
}

function retryAfter(headers: Headers): number | undefined {
  const value = headers.get('retry-after');
  if (value === null) return undefined;
  const milliseconds = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  // A hub that asks for an hour gets its answer as an error, after a minute.
  return Number.isFinite(milliseconds) ? Math.min(Math.max(milliseconds, 0), 60_000) : undefined;
}
