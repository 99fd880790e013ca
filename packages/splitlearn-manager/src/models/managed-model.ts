import type { ModelInfo } from '@splitlearn/comm';
import { ManagerError } from '../errors.js';
import type { ModelHost } from '../hosts/model-host.js';
import { COOL_DOWN_MS } from './crash-history.js';
import { ModelLease } from './lease.js';
import type { ModelState } from './model-state.js';
import { type Place, SupervisedHosts, type SupervisedHostsOptions } from './supervised-hosts.js';

export interface ManagedModelOptions extends Pick<SupervisedHostsOptions, 'startHost' | 'onCrash'> {
  readonly modelId: string;
  /** How many hosts the model runs in. */
  readonly instances: number;
  /** What its memory and threads are reserved as. */
  readonly reservationId: string;
  /** The threads that one run computes with. */
  readonly threads: number;
  /** What it is thought to take until that is known, in bytes. */
  readonly memoryBytes: number;
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

/** One life of a model, from its load to its unload: its state, and the leases on its hosts that are out. */
export class ManagedModel {
  readonly modelId: string;
  readonly reservationId: string;
  readonly threads: number;
  /** What it takes, in bytes: an estimate until it has been loaded. */
  memoryBytes: number;
  /** How long the load took, in milliseconds. */
  loadMs = 0;
  readonly #options: ManagedModelOptions;
  readonly #hosts: SupervisedHosts;
  #state: ModelState = 'LOADING';
  #loading: Promise<void> | undefined;
  /** Until then its state is that of the load, whatever crashes meanwhile. */
  #loaded = false;
  #retired = false;
  #leases = 0;
  /** The last crash, and whether it was one too many. */
  #crash: { readonly error: ManagerError; readonly givenUp: boolean } | undefined;
  /** Why it is FAILED. */
  #failure: ManagerError | undefined;
  /** Who waits until the model is ready, or will not be. */
  #whenSettled: ((error?: ManagerError) => void)[] = [];
  #whenIdle: (() => void)[] = [];
  #unloading: Promise<UnloadOutcome> | undefined;
  #cutOff!: () => void;
  readonly #patience = new Promise<void>((resolve) => (this.#cutOff = resolve));

  constructor(options: ManagedModelOptions) {
    const { instances, startHost, onCrash } = options;
    this.modelId = options.modelId;
    this.reservationId = options.reservationId;
    this.threads = options.threads;
    this.memoryBytes = options.memoryBytes;
    this.#options = options;
    this.#hosts = new SupervisedHosts({
      ...{ instances, startHost, onCrash },
      onDown: (error, givenUp) => {
        this.#crash = { error, givenUp };
        this.#follow();
      },
      onUp: () => this.#follow(),
    });
  }

  get state(): ModelState {
    return this.#state;
  }

  /** The hosts that run now. */
  get hosts(): readonly ModelHost[] {
    return this.#hosts.running;
  }

  /** Leases that are out: requests and sessions under way. */
  get leases(): number {
    return this.#leases;
  }

  get info(): Omit<ModelInfo, 'name' | 'state'> {
    return this.hosts[0]?.info ?? {};
  }

  /** What its hosts take now, in bytes. One that is being started again goes on counting as what it took before. */
  async measureMemory(): Promise<number> {
    const bytes = await this.#hosts.memoryBytes();
    this.memoryBytes = this.#hosts.complete ? bytes : Math.max(bytes, this.memoryBytes);
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
    const place = this.#hosts.take();
    if (!place) return undefined;
    this.#leases++;
    return new ModelLease(this.modelId, place.host.computeFn, () => this.#released(place));
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
    if (this.#state === 'DRAINING') this.#follow();
  }

  /** Resolves when no lease is out, or those that are have been cut off. */
  async whenIdle(): Promise<void> {
    if (this.#leases > 0 && this.#state !== 'UNLOADED')
      await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
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
    const failure = await this.#hosts.start().then(
      // Those that could be started may have crashed by now.
      () => (this.hosts.length > 0 ? undefined : this.#crash?.error),
      (error: ManagerError) => error,
    );
    if (this.#unloading) throw this.#draining();
    if (!failure) {
      this.#loaded = true;
      this.loadMs = performance.now() - startedMs;
      this.#follow();
      return;
    }
    this.#hosts.giveUp(failure);
    await Promise.allSettled([this.#hosts.stop(), this.#hosts.settled()]);
    if (this.#unloading) throw this.#draining();
    this.#enter('FAILED', failure);
    throw failure;
  }

  async #unload(): Promise<UnloadOutcome> {
    this.#enter('DRAINING');
    this.#hosts.giveUp(this.#draining());
    await Promise.race([this.whenIdle(), this.#patience]);
    await Promise.allSettled([this.#loading, this.#hosts.settled()]);
    const interrupted = this.#leases;
    try {
      return { interrupted, reclaimedBytes: await this.#hosts.memoryBytes() };
    } finally {
      await this.#hosts.stop().finally(() => this.#enter('UNLOADED'));
    }
  }

  #released(place: Place): void {
    this.#hosts.giveBack(place);
    if (--this.#leases > 0) return;
    this.#tellIdle();
    this.#options.onIdle();
  }

  #tellIdle(): void {
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** Enters the state that its hosts leave it in. One that drains goes on with that until it is resumed. */
  #follow(): void {
    if (!this.#loaded || this.#unloading || (this.#retired && this.#state === 'DRAINING')) return;
    if (this.hosts.length > 0) this.#enter(this.#retired ? 'DRAINING' : 'READY');
    else if (this.#crash?.givenUp) this.#enter('FAILED', this.#givenUp(this.#crash.error));
    else this.#enter('LOADING', this.#crash?.error);
  }

  #enter(state: ModelState, error?: ManagerError): void {
    if (state === 'FAILED') this.#failure = error;
    if (this.#state !== state) {
      this.#state = state;
      this.#options.onState(state, error);
    }
    if (state === 'LOADING') return;
    if (state === 'UNLOADED') this.#tellIdle();
    const failure = state === 'READY' ? undefined : state === 'FAILED' ? error : this.#draining();
    for (const settled of this.#whenSettled.splice(0)) settled(failure);
  }

  #draining(): ManagerError {
    return new ManagerError('MODEL_DRAINING', `model '${this.modelId}' is being unloaded and takes no new requests`);
  }

  #givenUp(crash: ManagerError): ManagerError {
    const message =
      `model '${this.modelId}' has crashed again and again and is left alone for ${COOL_DOWN_MS / 60_000} minutes; look ` +
      `at why, and call reloadModel('${this.modelId}') when it is mended. The last time: ${crash.message}`;
    return new ManagerError('MODEL_FAILED', message, { cause: crash });
  }
}
