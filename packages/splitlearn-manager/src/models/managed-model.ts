import type { ModelInfo } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { ModelHost } from '../hosts/model-host.js';
import { ModelLease } from './lease.js';
import type { ModelState } from './model-state.js';

/** Starts the process or thread of a model. */
export type StartHost = () => Promise<ModelHost>;

/** One model's life: its state, the host that runs it, and the leases that are out. */
export class ManagedModel {
  readonly modelId: string;
  readonly #startHost: StartHost;
  readonly #onCrash: (error: ManagerError) => void;
  #state: ModelState = 'LOADING';
  #host: ModelHost | undefined;
  #loading: Promise<ModelHost> | undefined;
  #leases = 0;
  #whenUnused: (() => void) | undefined;

  constructor(modelId: string, startHost: StartHost, onCrash: (error: ManagerError) => void) {
    this.modelId = modelId;
    this.#startHost = startHost;
    this.#onCrash = onCrash;
  }

  get state(): ModelState {
    return this.#state;
  }

  get host(): ModelHost | undefined {
    return this.#host;
  }

  /** Leases that are out: requests and sessions under way. */
  get leases(): number {
    return this.#leases;
  }

  get info(): Omit<ModelInfo, 'name' | 'state'> {
    return this.#host?.info ?? {};
  }

  /** Starts the model where it does not run. However many ask at once, it is started once. */
  load(): Promise<ModelHost> {
    if (this.#state === 'DRAINING' || this.#state === 'UNLOADED') return Promise.reject(this.#draining());
    if (this.#host) return Promise.resolve(this.#host);
    this.#loading ??= this.#start().finally(() => (this.#loading = undefined));
    return this.#loading;
  }

  /**
   * Takes a lease, starting the model first where its process has ended.
   *
   * @param signal - Gives up waiting for the start; the start itself goes on for whoever else waits.
   */
  async acquire(signal?: AbortSignal): Promise<ModelLease> {
    const host = await abortable(this.load(), signal);
    if (this.#state !== 'READY') throw this.#draining();
    this.#leases++;
    return new ModelLease(this.modelId, host.computeFn, () => {
      if (--this.#leases === 0) this.#whenUnused?.();
    });
  }

  /**
   * Refuses new leases, waits up to `graceMs` for those that are out, and ends the host.
   *
   * @returns how many requests were cut off, and the memory that the host had, in bytes.
   */
  async unload(graceMs: number): Promise<{ interrupted: number; reclaimedBytes: number }> {
    this.#state = 'DRAINING';
    const host = this.#host ?? (await this.#loading?.catch(() => undefined));
    const until = Date.now() + graceMs;
    if (this.#leases > 0) await this.#unused(graceMs);
    const interrupted = this.#leases;
    const reclaimedBytes = (await host?.memoryBytes()) ?? 0;
    await host?.stop(Math.max(0, until - Date.now()));
    this.#host = undefined;
    this.#state = 'UNLOADED';
    return { interrupted, reclaimedBytes };
  }

  async #start(): Promise<ModelHost> {
    this.#state = 'LOADING';
    try {
      const host = await this.#startHost();
      this.#host = host;
      if (this.#state === 'LOADING') this.#state = 'READY';
      void host.died.then((error) => this.#crashed(error));
      return host;
    } catch (error) {
      if (this.#state === 'LOADING') this.#state = 'FAILED';
      throw error;
    }
  }

  #crashed(error: ManagerError): void {
    this.#host = undefined;
    if (this.#state === 'READY') this.#state = 'FAILED';
    this.#onCrash(error);
  }

  async #unused(graceMs: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, graceMs);
      this.#whenUnused = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #draining(): ManagerError {
    return new ManagerError('MODEL_DRAINING', `model '${this.modelId}' is being unloaded and takes no new requests`);
  }
}

async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  signal.throwIfAborted();
  let abort!: () => void;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort);
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
