import { existsSync } from 'node:fs';
import { Option } from 'commander';
import type { ModelStatus } from '../http/admin-actions.js';
import type { AdmissionPlan } from '../models/admission.js';
import type { UnloadReport } from '../models/async-model-manager.js';
import type { ModelConfig } from '../models/model-config.js';
import type { ManagedModelInfo } from '../models/model-info.js';
import type { ModelState } from '../models/model-state.js';
import { CATALOG } from '../sources/catalog.js';
import type { DownloadProgress } from '../sources/hub/progress.js';
import type { CliEnvironment } from './cli-environment.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { CliError, exitCodeOf } from './failures.js';
import { jsonLines } from './json-lines.js';

/** Where `splitlearn serve` has its admin server when nothing else is said: the port after the one of requests. */
const DEFAULT_ADMIN_PORT = 50_052;

/** Which admin server a command talks to. */
export interface AdminOptions {
  readonly admin?: string;
  readonly token?: string;
}

/** What happens while a model is loaded, in lines. */
type LoadEvent =
  | ({ readonly type: 'download' } & DownloadProgress)
  | { readonly type: 'state'; readonly modelId: string; readonly state: ModelState }
  | { readonly type: 'done'; readonly model: ManagedModelInfo }
  | { readonly type: 'error'; readonly error: AdminFailure };

interface AdminFailure {
  readonly code: string;
  readonly message: string;
}

interface AdminRequest {
  readonly method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  readonly body?: unknown;
  readonly accept?: string;
  readonly signal?: AbortSignal;
}

export function adminOptions(): Option[] {
  return [
    new Option('--admin <address>', 'the admin server (SPLITLEARN_ADMIN)').default(
      undefined,
      `127.0.0.1:${DEFAULT_ADMIN_PORT}`,
    ),
    new Option('--token <token>', 'its token; better in SPLITLEARN_ADMIN_TOKEN, which no list of processes shows'),
  ];
}

/** Talks to the admin server of a running `splitlearn serve`. */
export class AdminClient {
  readonly address: string;
  readonly #token: string | undefined;
  readonly #fetch: typeof fetch;

  /** @throws CliError `USAGE` for what is no address. */
  constructor({ admin, token }: AdminOptions, { env, fetch }: Pick<CliEnvironment, 'env' | 'fetch'>) {
    this.address = readAddress(admin ?? (env.SPLITLEARN_ADMIN || `127.0.0.1:${DEFAULT_ADMIN_PORT}`));
    this.#token = token ?? (env.SPLITLEARN_ADMIN_TOKEN || undefined);
    this.#fetch = fetch;
  }

  /**
   * A model's source as the server has to be told it: a path of this machine is nothing to one that runs elsewhere, or in
   * another folder.
   */
  async sourceThere(source: string): Promise<string> {
    const { pathOf } = await import('../sources/local.js');
    const path = pathOf(source);
    const isHere = /^(127\.|localhost$|\[::1\]$)/.test(new URL(this.address).hostname);
    return isHere && !CATALOG.has(source) && existsSync(path) ? path : source;
  }

  async listModels(signal?: AbortSignal): Promise<readonly ModelStatus[]> {
    const { models } = (await this.#json('/v1/models', { ...(signal && { signal }) })) as {
      models: readonly ModelStatus[];
    };
    return models;
  }

  async plan(config: ModelConfig, signal?: AbortSignal): Promise<AdmissionPlan> {
    return (await this.#json('/v1/plan', {
      ...{ method: 'POST', body: config },
      ...(signal && { signal }),
    })) as AdmissionPlan;
  }

  async unloadModel(modelId: string, graceMs: number | undefined, signal?: AbortSignal): Promise<UnloadReport> {
    const query = graceMs === undefined ? '' : `?graceMs=${graceMs}`;
    const path = `/v1/models/${encodeURIComponent(modelId)}${query}`;
    return (await this.#json(path, { method: 'DELETE', ...(signal && { signal }) })) as UnloadReport;
  }

  /** Loads a model, telling what happens meanwhile; the last event is `done` or `error`. */
  async *loadModel(config: ModelConfig, signal?: AbortSignal): AsyncGenerator<LoadEvent, void> {
    const response = await this.#request('/v1/models', {
      ...{ method: 'POST', body: config, accept: 'application/x-ndjson' },
      ...(signal && { signal }),
    });
    const isStream = response.headers.get('content-type')?.includes('ndjson') === true;
    if (!isStream) {
      yield { type: 'done', model: (await response.json()) as ManagedModelInfo };
      return;
    }
    yield* jsonLines(response.body ?? new ReadableStream()) as AsyncGenerator<LoadEvent>;
  }

  async #json(path: string, request: AdminRequest): Promise<unknown> {
    return (await this.#request(path, request)).json();
  }

  async #request(path: string, { method = 'GET', body, accept, signal }: AdminRequest): Promise<Response> {
    const response = await this.#fetch(`${this.address}${path}`, {
      method,
      headers: {
        accept: accept ?? 'application/json',
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...(this.#token !== undefined && { authorization: `Bearer ${this.#token}` }),
      },
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(signal && { signal }),
    }).catch((error: unknown) => {
      if (signal?.aborted) throw signal.reason;
      throw this.#unreachable(error);
    });
    if (!response.ok) throw await this.#refusal(response);
    return response;
  }

  #unreachable(error: unknown): CliError {
    const { cause = error } = error as { cause?: unknown };
    const { code, message } = cause as { code?: string; message?: string };
    return new CliError(
      EXIT.UNREACHABLE,
      'ADMIN_UNREACHABLE',
      `no admin server answers at ${this.address} (${code ?? message ?? cause}); start one with \`splitlearn serve\`, ` +
        `or give the address of the one you mean with --admin or SPLITLEARN_ADMIN`,
      { cause: error },
    );
  }

  async #refusal(response: Response): Promise<CliError> {
    const { status } = response;
    const text = await response.text().catch(() => '');
    const failure = readFailure(text);
    if (status === 401 || status === 403) {
      const had = this.#token === undefined ? 'and none was given' : 'and the one that was given is not its own';
      return new CliError(
        EXIT.DENIED,
        failure?.code ?? 'UNAUTHENTICATED',
        `the server at ${this.address} wants its admin token for this, ${had}; put it into SPLITLEARN_ADMIN_TOKEN, or give --token`,
      );
    }
    if (failure) {
      return new CliError(exitCodeOf(failure.code) ?? exitCodeOfStatus(status), failure.code, failure.message);
    }
    return new CliError(
      exitCodeOfStatus(status),
      'ADMIN_REFUSED',
      `${this.address} answered ${status}, and not as an admin server does; check the address and the port`,
    );
  }
}

function readAddress(address: string): string {
  const written = /^https?:\/\//.test(address) ? address : `http://${address}`;
  const url = URL.canParse(written) ? new URL(written) : undefined;
  if (url?.hostname && !url.search && !url.hash && !url.username) return url.href.replace(/\/+$/, '');
  throw new CliError(
    EXIT.USAGE,
    'INVALID_ADDRESS',
    `'${address}' is no address of an admin server; write it as host:port, such as 127.0.0.1:${DEFAULT_ADMIN_PORT}`,
  );
}

function readFailure(text: string): AdminFailure | undefined {
  try {
    const { error } = JSON.parse(text) as { error?: Partial<AdminFailure> };
    if (typeof error?.code === 'string' && typeof error.message === 'string') return error as AdminFailure;
  } catch {}
  return undefined;
}

function exitCodeOfStatus(status: number): ExitCode {
  if (status === 404) return EXIT.NOT_FOUND;
  if (status === 400 || status === 422) return EXIT.USAGE;
  if (status === 503 || status === 502 || status === 504) return EXIT.UNREACHABLE;
  return EXIT.FAILED;
}
