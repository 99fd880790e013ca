import type { ModelInfo } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { ModelHost } from '../hosts/model-host.js';
import { COOL_DOWN_MS, CrashHistory } from './crash-history.js';
import { ModelLease } from './lease.js';
import type { ModelState } from './model-state.js';

/** Starts one process or thread of a model. It may give up when the signal is aborted: nobody waits for it then. */
type StartHost = (signal: AbortSignal) => Promise<ModelHost>;

export interface ManagedModelOptions {
  readonly modelId: string;
  /** How many hosts the model runs in. */
  readonly instances: number;
  /** What its memory and threads are reserved as. */
  readonly reservationId: string;
  /** The threads that one run computes with. */
  readonly threads: number;
  /** What it is thought to take until that is known, in bytes. */
  readonly memoryBytes: number;
  readonly startHost: StartHost;
  /** A host has ended by itself. */
  readonly onCrash: (error: ManagerError) => void;
  readonly onState: (state: ModelState, error?: ManagerError) => void;
  /** The last lease has been given back. */
  readonly onIdle: () => void;
}

/** The longest that `setTimeout` waits; given more, it does not wait at all. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

export interface UnloadOutcome {
  /** How many requests were cut off. */
  readonly interrupted: number;
  /** The memory that the hosts had, in bytes. */
  readonly reclaimedBytes: number;
}

/** One of the hosts that a model runs in, or the place of one that has crashed. */
interface Instance {
  host: ModelHost | undefined;
  startedMs: number;
  leases: number;
}

/**
 * One life of a model, from its load to its unload: the hosts that run it, and the leases that are out. A host that
 * crashes is started again; a model that does nothing but crash is left alone for a while.
 */
export class ManagedModel {
  readonly modelId: string;
  readonly reservationId: string;
  readonly threads: number;
  /** What it takes, in bytes: an estimate until it has been loaded. */
  memoryBytes: number;
  /** How long the load took, in milliseconds. */
  loadMs = 0;
  readonly #options: ManagedModelOptions;
  readonly #instances: Instance[];
  readonly #crashes = new CrashHistory();
  readonly #over = new AbortController();
  #state: ModelState = 'LOADING';
  #loading: Promise<void> | undefined;
  /** Until then its state is that of the load, whatever crashes meanwhile. */
  #loaded = false;
  #retired = false;
  #leases = 0;
  /** What it crashed of the last time, or why it is FAILED. */
  #failure: ManagerError | undefined;
  /** Who waits until the model is ready, or will not be. */
  #whenSettled: ((error?: ManagerError) => void)[] = [];
  #whenIdle: (() => void)[] = [];
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #starting = new Set<Promise<void>>();
  #unloading: Promise<UnloadOutcome> | undefined;
  #cutOff!: () => void;
  readonly #patience = new Promise<void>((resolve) => (this.#cutOff = resolve));

  constructor(options: ManagedModelOptions) {
    this.modelId = options.modelId;
    this.reservationId = options.reservationId;
    this.threads = options.threads;
    this.memoryBytes = options.memoryBytes;
    this.#options = options;
    this.#instances = Array.from({ length: options.instances }, () => ({ host: undefined, startedMs: 0, leases: 0 }));
  }

  get state(): ModelState {
    return this.#state;
  }

  /** The hosts that run now. */
  get hosts(): readonly ModelHost[] {
    return this.#instances.flatMap(({ host }) => host ?? []);
  }

  /** Leases that are out: requests and sessions under way. */
  get leases(): number {
    return this.#leases;
  }

  get info(): Omit<ModelInfo, 'name' | 'state'> {
    return this.hosts[0]?.info ?? {};
  }

  /** What its hosts take now, in bytes. */
  async measureMemory(): Promise<number> {
    const each = await Promise.all(this.hosts.map((host) => host.memoryBytes()));
    this.memoryBytes = each.reduce((sum, bytes) => sum + bytes, 0);
    return this.memoryBytes;
  }

  /** Starts all hosts. Nothing is left of them when one cannot be started. */
  load(): Promise<void> {
    this.#loading ??= this.#load();
    return this.#loading;
  }

  /** A lease on the least busy host; `undefined` where there is none to be had now. */
  tryLease(): ModelLease | undefined {
    if (this.#state !== 'READY' || this.#retired) return undefined;
    let least: Instance | undefined;
    for (const instance of this.#instances) {
      if (instance.host && (!least || instance.leases < least.leases)) least = instance;
    }
    if (!least?.host) return undefined;
    const instance = least;
    const { host } = least;
    instance.leases++;
    this.#leases++;
    return new ModelLease(this.modelId, host.computeFn, () => this.#released(instance, host));
  }

  /**
   * Resolves when the model is ready.
   *
   * @throws ManagerError `MODEL_FAILED` when it has crashed too often, `MODEL_DRAINING` when it is unloaded, and what
   * `load` threw.
   */
  async whenReady(): Promise<void> {
    if (this.#unloading) throw this.#draining();
    if (this.#state === 'FAILED') throw this.#failure;
    if (this.#state === 'READY') return;
    await new Promise<void>((resolve, reject) => {
      this.#whenSettled.push((error) => (error ? reject(error) : resolve()));
    });
  }

  /** Gives out no more leases, until `resume`. */
  retire(): void {
    this.#retired = true;
    if (this.#state === 'READY') this.#enter('DRAINING');
  }

  resume(): void {
    if (!this.#retired || this.#unloading) return;
    this.#retired = false;
    if (this.#state === 'DRAINING') this.#enter(this.hosts.length > 0 ? 'READY' : 'LOADING');
  }

  /** Resolves when no lease is out. */
  async whenIdle(): Promise<void> {
    if (this.#leases > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  /**
   * Refuses new leases, waits up to `graceMs` for those that are out, and ends the hosts. A start that is under way is
   * given up. While the model is being unloaded already, this joins in, and can only shorten the wait.
   */
  async unload(graceMs: number): Promise<UnloadOutcome> {
    this.#unloading ??= this.#unload();
    const timer = setTimeout(() => this.#cutOff(), Math.min(graceMs, MAX_TIMER_MS));
    try {
      return await this.#unloading;
    } finally {
      clearTimeout(timer);
    }
  }

  async #load(): Promise<void> {
    const startedMs = performance.now();
    const started = await Promise.allSettled(this.#instances.map((instance) => this.#start(instance)));
    if (this.#unloading) throw this.#draining();
    const failed = started.find((result) => result.status === 'rejected');
    // Those that could be started may have crashed by now.
    const failure: ManagerError | undefined = failed
      ? failed.reason
      : this.hosts.length > 0
        ? undefined
        : this.#failure;
    if (!failure) {
      this.#loaded = true;
      this.loadMs = performance.now() - startedMs;
      this.#enter(this.#retired ? 'DRAINING' : 'READY');
      return;
    }
    this.#giveUp(failure);
    const { hosts } = this;
    for (const instance of this.#instances) instance.host = undefined;
    await Promise.allSettled(hosts.map((host) => host.stop()));
    if (this.#unloading) throw this.#draining();
    this.#enter('FAILED', failure);
    throw failure;
  }

  #start(instance: Instance): Promise<void> {
    const starting = this.#startHost(instance).finally(() => this.#starting.delete(starting));
    this.#starting.add(starting);
    return starting;
  }

  async #startHost(instance: Instance): Promise<void> {
    const { signal } = this.#over;
    const host = await this.#options.startHost(signal);
    if (signal.aborted) {
      await host.stop();
      throw signal.reason;
    }
    instance.host = host;
    instance.startedMs = performance.now();
    void host.died.then((error) => this.#crashed(instance, host, error));
  }

  #crashed(instance: Instance, host: ModelHost, error: ManagerError): void {
    if (instance.host !== host) return;
    instance.host = undefined;
    this.#options.onCrash(error);
    // A run that wanted too much memory says nothing of the model.
    const upMs =
      error.code === 'INSUFFICIENT_MEMORY' ? Number.POSITIVE_INFINITY : performance.now() - instance.startedMs;
    this.#recover(instance, error, upMs);
  }

  /** Starts an instance again that has crashed, or could not be started. */
  #recover(instance: Instance, error: ManagerError, upMs: number): void {
    if (this.#unloading || this.#over.signal.aborted) return;
    this.#failure = error;
    const delayMs = this.#crashes.crashed(upMs);
    const without = this.hosts.length === 0;
    if (without && this.#loaded && this.#state !== 'DRAINING') {
      if (delayMs === undefined) this.#enter('FAILED', this.#failed(error));
      else this.#enter('LOADING', error);
    }
    this.#after(delayMs ?? COOL_DOWN_MS, () => {
      this.#start(instance).then(
        () => {
          // It may have crashed at once.
          if (instance.host && this.#loaded && this.#state !== 'DRAINING') this.#enter('READY');
        },
        (failure) => this.#recover(instance, failure, 0),
      );
    });
  }

  async #unload(): Promise<UnloadOutcome> {
    this.#enter('DRAINING');
    this.#giveUp(this.#draining());
    await Promise.race([this.whenIdle(), this.#patience]);
    await Promise.allSettled([this.#loading, ...this.#starting]);
    const interrupted = this.#leases;
    let reclaimedBytes = 0;
    try {
      reclaimedBytes = await this.measureMemory();
    } finally {
      await this.#stopHosts();
    }
    return { interrupted, reclaimedBytes };
  }

  async #stopHosts(): Promise<void> {
    try {
      const stopped = await Promise.allSettled(this.hosts.map((host) => host.stop()));
      const failed = stopped.find((result) => result.status === 'rejected');
      if (failed) throw failed.reason;
    } finally {
      for (const instance of this.#instances) instance.host = undefined;
      this.#enter('UNLOADED');
    }
  }

  /** Starts nothing any more, and gives up what is being started. */
  #giveUp(reason: ManagerError): void {
    this.#over.abort(reason);
    for (const timer of this.#timers) clearTimeout(timer);
  }

  #released(instance: Instance, host: ModelHost): void {
    instance.leases--;
    if (instance.host === host) this.#crashes.worked();
    if (--this.#leases > 0) return;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
    this.#options.onIdle();
  }

  #enter(state: ModelState, error?: ManagerError): void {
    if (state === 'FAILED') this.#failure = error;
    if (this.#state !== state) {
      this.#state = state;
      this.#options.onState(state, error);
    }
    if (state === 'LOADING') return;
    const failure = state === 'READY' ? undefined : state === 'FAILED' ? error : this.#draining();
    for (const settled of this.#whenSettled.splice(0)) settled(failure);
  }

  #after(delayMs: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, delayMs).unref();
    this.#timers.add(timer);
  }

  #draining(): ManagerError {
    return new ManagerError('MODEL_DRAINING', `model '${this.modelId}' is being unloaded and takes no new requests`);
  }

  #failed(crash: ManagerError): ManagerError {
    const message =
      `model '${this.modelId}' has crashed again and again and is left alone for ${COOL_DOWN_MS / 60_000} minutes; look ` +
      `at why, and call reloadModel('${this.modelId}') when it is mended. The last time: ${crash.message}`;
    return new ManagerError('MODEL_FAILED', message, { cause: crash });
  }
}
