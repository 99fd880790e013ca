import { ManagerError, type ManagerErrorCode } from '../errors.js';
import type { LocatedModel } from '../sources/local.js';
import type { ModelLease } from './lease.js';
import type { ManagedModel } from './managed-model.js';
import type { ResolvedModelConfig } from './model-config.js';
import type { ModelState } from './model-state.js';

/** Someone who wants a lease and has to wait for it. */
interface Waiter {
  resolve(lease: ModelLease): void;
  reject(reason: unknown): void;
  readonly signal: AbortSignal | undefined;
  readonly giveUp: () => void;
}

/** How busy a model is, and what a request for it would find. Read it at once: it goes on changing. */
export interface ModelLoad {
  readonly state: ModelState;
  /** It is being unloaded for good: requests for it are refused. */
  readonly leaving: boolean;
  /** Requests and sessions that use it or wait for it. */
  readonly inFlight: number;
  /** How many hosts it runs in, or will. */
  readonly instances: number;
  /** What it takes, in bytes; 0 while it is not loaded. */
  readonly memoryBytes: number;
  /** The most that it may take, in bytes, all hosts together; absent where it has no limit of its own. */
  readonly memoryLimitBytes: number | undefined;
  /** How large its files are, in bytes; 0 where they are not on this machine. */
  readonly fileBytes: number;
  /** What its memory is reserved as; absent while it is not loaded. */
  readonly reservationId: string | undefined;
}

/** What a load is refused with that would need others to be evicted. */
const NO_ROOM: ReadonlySet<string> = new Set<ManagerErrorCode>(['INSUFFICIENT_MEMORY', 'TOO_MANY_MODELS']);

/** Ends a load that has not begun yet. It reaches only who asks again at that moment, and then it is begun anew. */
const UNWANTED = new ManagerError('MODEL_DRAINING', 'nobody waits for the model any more');

export interface RegisteredModelOptions {
  /** How many models were given before. */
  readonly order: number;
  readonly config: ResolvedModelConfig;
  readonly located: LocatedModel;
  /** Brings the model up; `signal` is aborted when nobody wants it any more, before it has begun. */
  readonly bringUp: (evict: boolean, signal: AbortSignal) => Promise<void>;
}

/** A model that the manager knows, loaded or not: its lives, one after the other, and who waits for the next. */
export class RegisteredModel implements ModelLoad {
  readonly modelId: string;
  readonly order: number;
  config: ResolvedModelConfig;
  located: LocatedModel;
  /** Absent while the model is not loaded. */
  life: ManagedModel | undefined;
  /** The life that is to take the place of the present one. */
  next: ManagedModel | undefined;
  /** How often it was loaded. */
  loads = 0;
  /** When it was last asked for, in milliseconds since the epoch. */
  lastUsedAtMs = Date.now();
  /** Why it could not be loaded the last time, or crashes. */
  failure: ManagerError | undefined;
  /** The life that was replaced, while it still has requests. */
  previous: ManagedModel | undefined;
  /** Set while a life begins: for the first time, or to take the place of the present one. Never rejects. */
  starting: Promise<void> | undefined;
  /** Set while it is being reloaded. */
  reloading: Promise<void> | undefined;
  /** Set while it is being evicted. Never rejects. */
  evicting: Promise<void> | undefined;
  /** It is being unloaded for good, and this is what whoever asks for it is told. */
  removal: ManagerError | undefined;
  /** Aborted then: ends what is under way for it. */
  readonly removing = new AbortController();
  /** Resolves when that is over. */
  removed: Promise<void> | undefined;
  /** Until it has been idle for long enough to be unloaded. */
  idleTimer: NodeJS.Timeout | undefined;
  readonly #bringUp: RegisteredModelOptions['bringUp'];
  readonly #waiters = new Set<Waiter>();
  #loading: Promise<void> | undefined;
  /** Resolves when the last beginning of a life is over. */
  #turn: Promise<void> = Promise.resolve();
  #unwanted = new AbortController();
  /** Loads that were asked for as such, and not for a request; and those of them that may evict. */
  #wanted = 0;
  #wantedWithEviction = 0;

  constructor({ order, config, located, bringUp }: RegisteredModelOptions) {
    this.modelId = located.modelId;
    this.order = order;
    this.config = config;
    this.located = located;
    this.#bringUp = bringUp;
  }

  get state(): ModelState {
    if (this.removal) return 'DRAINING';
    if (this.life) return this.life.state;
    if (this.#loading || this.reloading) return 'LOADING';
    return this.failure ? 'FAILED' : 'UNLOADED';
  }

  /** All its lives: while it is reloaded, it has two. */
  get lives(): ManagedModel[] {
    return [this.life, this.next, this.previous].flatMap((life) => life ?? []);
  }

  /** What they take together, in bytes. */
  get memoryBytes(): number {
    return this.lives.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0);
  }

  /** Whether requests use it or wait for it. */
  get busy(): boolean {
    return (this.life?.leases ?? 0) > 0 || this.#waiters.size > 0 || this.starting !== undefined;
  }

  get leaving(): boolean {
    return this.removal !== undefined;
  }

  /** Requests and sessions that use it or wait for it. */
  get inFlight(): number {
    return (this.life?.leases ?? 0) + this.#waiters.size;
  }

  get instances(): number {
    return this.config.instances;
  }

  get memoryLimitBytes(): number | undefined {
    const { maxMemoryBytes, instances } = this.config;
    return maxMemoryBytes === undefined ? undefined : maxMemoryBytes * instances;
  }

  get fileBytes(): number {
    return this.located.fileBytes;
  }

  get reservationId(): string | undefined {
    return this.life?.reservationId;
  }

  /** Begins a life, when no other begins and it is not being evicted: a load and a reload take turns. */
  async inTurn<T>(begin: () => Promise<T>): Promise<T> {
    const before = this.#turn;
    let over!: () => void;
    this.#turn = new Promise<void>((resolve) => (over = resolve));
    try {
      await before;
      while (this.evicting) await this.evicting;
      return await begin();
    } finally {
      over();
    }
  }

  /** A lease, where there is one to be had at once. */
  lease(): ModelLease | undefined {
    this.lastUsedAtMs = Date.now();
    return this.life?.tryLease();
  }

  /** A lease, at once or when the model is there. Whoever came first is served first. */
  async acquire(signal?: AbortSignal): Promise<ModelLease> {
    signal?.throwIfAborted();
    const lease = this.lease();
    if (lease) return lease;
    if (this.removal) throw this.removal;
    return new Promise<ModelLease>((resolve, reject) => {
      const giveUp = () => {
        this.#leave(waiter);
        reject(signal?.reason);
      };
      const waiter: Waiter = { resolve, reject, signal, giveUp };
      signal?.addEventListener('abort', giveUp);
      this.#waiters.add(waiter);
      void this.#serveWaiters();
    });
  }

  /** Loads the model where it is not loaded. However many ask at once, it is loaded once. */
  async load(evict = true): Promise<void> {
    this.#wanted++;
    this.#wantedWithEviction += Number(evict);
    try {
      await this.#load().catch((error) => {
        // It joined one that had been given up.
        if (error !== UNWANTED) throw error;
        return this.#load();
      });
    } finally {
      this.#wanted--;
      this.#wantedWithEviction -= Number(evict);
    }
  }

  /** Gives those who wait a lease. To be called at the moment when the model becomes ready: later it may be gone again. */
  serve(): void {
    for (const waiter of this.#waiters) {
      const lease = this.life?.tryLease();
      if (!lease) return;
      this.#leave(waiter);
      waiter.resolve(lease);
    }
  }

  /** Tells those who wait that they wait in vain. */
  refuse(error: unknown): void {
    if (this.removal) {
      this.#unwanted.abort(this.removal);
      this.removing.abort(this.removal);
    }
    for (const waiter of this.#waiters) {
      this.#leave(waiter);
      waiter.reject(error);
    }
  }

  #leave(waiter: Waiter): void {
    waiter.signal?.removeEventListener('abort', waiter.giveUp);
    this.#waiters.delete(waiter);
    if (this.#waiters.size === 0 && this.#wanted === 0) this.#unwanted.abort(UNWANTED);
  }

  async #serveWaiters(): Promise<void> {
    try {
      if (!this.life || this.evicting) await this.#load();
      await this.life?.whenReady();
      this.serve();
    } catch (error) {
      // It was evicted, or replaced, while they waited: that is no answer.
      if (!this.removal && this.#waiters.size > 0 && (error as ManagerError).code === 'MODEL_DRAINING') {
        await this.evicting;
        void this.#serveWaiters();
        return;
      }
      this.refuse(this.removal ?? error);
    }
  }

  #load(): Promise<void> {
    if (this.removal) return Promise.reject(this.removal);
    if (this.life && !this.evicting) return this.life.load();
    if (this.#unwanted.signal.aborted) this.#unwanted = new AbortController();
    this.#loading ??= this.#bringUpOnce();
    return this.#loading;
  }

  /** One load for all who want it, and with eviction where one of them may evict. */
  async #bringUpOnce(): Promise<void> {
    const evict = this.#mayEvict;
    try {
      await this.#bringUp(evict, this.#unwanted.signal).catch((error) => {
        // Someone may have come who may evict.
        if (evict || !this.#mayEvict || !NO_ROOM.has(error.code)) throw error;
        return this.#bringUp(true, this.#unwanted.signal);
      });
    } finally {
      this.#loading = undefined;
    }
  }

  get #mayEvict(): boolean {
    return this.#waiters.size > 0 || this.#wantedWithEviction > 0;
  }
}
