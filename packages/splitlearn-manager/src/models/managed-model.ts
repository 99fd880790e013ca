import type { ModelInfo } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { ModelHost } from '../hosts/model-host.js';
import { ModelLease } from './lease.js';
import type { ModelState } from './model-state.js';

/** Starts the process or thread of a model. It may give up when the signal is aborted: nobody waits for it then. */
export type StartHost = (signal: AbortSignal) => Promise<ModelHost>;

/** The longest that `setTimeout` waits; given more, it does not wait at all. */
const MAX_TIMER_MS = 2 ** 31 - 1;

export interface UnloadOutcome {
  /** How many requests were cut off. */
  readonly interrupted: number;
  /** The memory that the host had, in bytes. */
  readonly reclaimedBytes: number;
}

/** One model's life: its state, the host that runs it, and the leases that are out. */
export class ManagedModel {
  readonly modelId: string;
  readonly #startHost: StartHost;
  readonly #onCrash: (error: ManagerError) => void;
  #state: ModelState = 'LOADING';
  #host: ModelHost | undefined;
  #loading: Promise<ModelHost> | undefined;
  #leases = 0;
  #unloading: Promise<UnloadOutcome> | undefined;
  readonly #unloadBegan = new AbortController();
  /** Ends an unload's wait for the leases that are out. */
  #stopWaiting!: () => void;
  readonly #waited = new Promise<void>((resolve) => (this.#stopWaiting = resolve));

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
    if (this.#unloading) return Promise.reject(this.#draining());
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
    signal?.throwIfAborted();
    const host = await abortable(this.load(), signal);
    if (this.#unloading) throw this.#draining();
    this.#leases++;
    return new ModelLease(this.modelId, host.computeFn, () => {
      if (--this.#leases === 0 && this.#unloading) this.#stopWaiting();
    });
  }

  /**
   * Refuses new leases, waits up to `graceMs` for those that are out, and ends the host. A start that is under way is
   * given up. While the model is being unloaded already, this joins in, and can only shorten the wait.
   */
  async unload(graceMs: number): Promise<UnloadOutcome> {
    this.#unloading ??= this.#unload();
    const timer = setTimeout(() => this.#stopWaiting(), Math.min(graceMs, MAX_TIMER_MS));
    try {
      return await this.#unloading;
    } finally {
      clearTimeout(timer);
    }
  }

  async #unload(): Promise<UnloadOutcome> {
    this.#state = 'DRAINING';
    this.#unloadBegan.abort(this.#draining());
    if (this.#leases === 0) this.#stopWaiting();
    await Promise.all([this.#waited, this.#loading?.catch(() => {})]);
    const interrupted = this.#leases;
    const host = this.#host;
    const reclaimedBytes = (await host?.memoryBytes()) ?? 0;
    try {
      await host?.stop();
    } finally {
      this.#host = undefined;
      this.#state = 'UNLOADED';
    }
    return { interrupted, reclaimedBytes };
  }

  async #start(): Promise<ModelHost> {
    this.#state = 'LOADING';
    try {
      const host = await this.#startHost(this.#unloadBegan.signal);
      this.#host = host;
      void host.died.then((error) => this.#crashed(error));
      this.#unloadBegan.signal.throwIfAborted();
      this.#state = 'READY';
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

  #draining(): ManagerError {
    return new ManagerError('MODEL_DRAINING', `model '${this.modelId}' is being unloaded and takes no new requests`);
  }
}

async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
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
