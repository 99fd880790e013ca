import { ManagerError } from '../../errors.js';
import { sleep } from '../clock.js';
import { type RequestSubject, refusal, TransientFailure, unavailable } from './hub-errors.js';
import type { HubRuntime } from './runtime.js';
import type { HubSettings } from './settings.js';

const MAX_REDIRECTS = 5;
/** The longest wait between two attempts, in milliseconds. */
const MAX_WAIT_MS = 30_000;

/** An answer whose body comes piece by piece. */
export interface HubAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly pieces: AsyncIterable<Uint8Array>;
}

export interface RequestOptions {
  readonly subject: RequestSubject;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

/** Makes requests of the hub: with the token, but to nobody else; with patience, but not for ever. */
export class HubRequests {
  readonly settings: HubSettings;
  readonly runtime: HubRuntime;

  constructor(settings: HubSettings, runtime: HubRuntime) {
    this.settings = settings;
    this.runtime = runtime;
  }

  /**
   * Makes one request. `consume` has read what it wants of the answer when it resolves; the rest is given up.
   *
   * @throws TransientFailure when the connection fails or stalls, and for 408, 429 and 5xx; ManagerError for other
   * answers that are no success; the signal's reason.
   */
  async once<T>(url: string, options: RequestOptions, consume: (answer: HubAnswer) => Promise<T>): Promise<T> {
    const { subject, signal } = options;
    signal?.throwIfAborted();
    const { idleMs, clock } = this.runtime;
    const controller = new AbortController();
    const stall = () => controller.abort(new TransientFailure(`nothing came for ${idleMs / 1000} s`));
    let cancelTimer = clock.after(idleMs, stall);
    const stillAlive = () => {
      cancelTimer();
      cancelTimer = clock.after(idleMs, stall);
    };
    const abort = () => controller.abort(signal?.reason);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const { response, isHub } = await this.#follow(url, options, controller.signal);
      stillAlive();
      if (!response.ok) throw isHub ? refusal(response, subject) : staleAddress(response);
      const pieces = readPieces(response, controller.signal, stillAlive);
      return await consume({ status: response.status, headers: response.headers, pieces });
    } finally {
      cancelTimer();
      signal?.removeEventListener('abort', abort);
      controller.abort();
    }
  }

  /**
   * Tries again what fails for the moment, after a random wait whose limit doubles each time.
   *
   * @param run tells with its parameter that it got on, and then has all its attempts again.
   * @throws ManagerError `SOURCE_UNAVAILABLE` when it keeps failing.
   */
  async patiently<T>(
    { subject, signal }: RequestOptions,
    run: (gotOn: () => void) => Promise<T>,
    attempts = this.runtime.attempts,
  ): Promise<T> {
    const { random, clock } = this.runtime;
    for (let failures = 0; ; ) {
      try {
        return await run(() => {
          failures = 0;
        });
      } catch (error) {
        if (!(error instanceof TransientFailure)) throw error;
        failures += 1;
        if (failures >= attempts) throw unavailable(subject, error);
        const waitMs = error.retryAfterMs ?? random() * Math.min(MAX_WAIT_MS, 500 * 2 ** (failures - 1));
        await sleep(clock, waitMs, signal);
      }
    }
  }

  async #follow(url: string, { subject, headers }: RequestOptions, signal: AbortSignal) {
    const { endpoint, token } = this.settings;
    let target = new URL(url);
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects += 1) {
      const isHub = target.origin === new URL(endpoint).origin;
      const response = await this.#fetch(target, signal, {
        ...headers,
        'accept-encoding': 'identity',
        ...(isHub && token !== undefined && { authorization: `Bearer ${token}` }),
      });
      const location = response.headers.get('location');
      if (response.status < 300 || response.status > 399 || location === null) return { response, isHub };
      await response.body?.cancel().catch(() => {});
      const next = URL.canParse(location, target.href) ? new URL(location, target) : undefined;
      if (!next || !/^https?:$/.test(next.protocol) || (target.protocol === 'https:' && next.protocol !== 'https:')) {
        throw unavailable(subject, new Error('it sends on to an address that is not safe'));
      }
      target = next;
    }
    throw unavailable(subject, new Error(`it sends on more than ${MAX_REDIRECTS} times`));
  }

  async #fetch(url: URL, signal: AbortSignal, headers: Record<string, string>): Promise<Response> {
    try {
      return await this.runtime.fetch(url.href, { headers, signal, redirect: 'manual' });
    } catch (error) {
      throw connectionFailure(error, signal);
    }
  }
}

/** The store that the hub sends on to takes its addresses for some time only; the next attempt gets a new one. */
function staleAddress({ status }: Response): TransientFailure {
  return new TransientFailure(`the store of the files answered ${status}`);
}

async function* readPieces(
  response: Response,
  signal: AbortSignal,
  stillAlive: () => void,
): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (!reader) return;
  for (;;) {
    const { done, value } = await reader.read().catch((error: unknown) => {
      throw connectionFailure(error, signal);
    });
    if (done) return;
    stillAlive();
    yield value;
  }
}

/** Why a connection failed. What Node says of it may quote an address with a signature in it, so only the code is kept. */
function connectionFailure(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = inner instanceof Error && 'code' in inner ? ` (${String(inner.code)})` : '';
  return new TransientFailure(`the connection failed${code}`, { cause: error });
}

/**
 * Reads a JSON answer of a limited size.
 *
 * @throws ManagerError `SOURCE_UNAVAILABLE` for more than `maxBytes`, or what is no JSON.
 */
export async function readJson(answer: HubAnswer, subject: RequestSubject, maxBytes: number): Promise<unknown> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const piece of answer.pieces) {
    length += piece.byteLength;
    if (length > maxBytes) throw unavailable(subject, new Error(`its answer is longer than ${maxBytes} bytes`));
    parts.push(piece);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8'));
  } catch (cause) {
    throw new ManagerError(
      'SOURCE_UNAVAILABLE',
      `the hub at ${subject.endpoint} answered something that is no JSON; check HF_ENDPOINT, and that no proxy's login ` +
        `page stands between`,
      { cause },
    );
  }
}
