import type { ManagerError, ManagerErrorCode } from '../errors.js';
import type { ModelHost } from '../hosts/model-host.js';
import { COOL_DOWN_MS, CrashHistory } from './crash-history.js';

/** Starts one process or thread of a model. It may give up when the signal is aborted: nobody waits for it then. */
type StartHost = (signal: AbortSignal) => Promise<ModelHost>;

export interface SupervisedHostsOptions {
  /** How many there are. */
  readonly instances: number;
  readonly startHost: StartHost;
  /** One has ended by itself. */
  readonly onCrash: (error: ManagerError) => void;
  /** One is down: it has ended by itself, or could not be started again. `givenUp`: it is left alone for a while. */
  readonly onDown: (error: ManagerError, givenUp: boolean) => void;
  /** One that was down has been started again; it may be down once more by now. */
  readonly onUp: () => void;
}

/** What a process dies of when a run wants more memory than there is, or than it may have. */
const TOO_MUCH_MEMORY: ReadonlySet<string> = new Set<ManagerErrorCode>([
  'INSUFFICIENT_MEMORY',
  'MODEL_MEMORY_EXCEEDED',
]);

/** One of the hosts that a model runs in, or the place of one that has crashed. */
interface Instance {
  host: ModelHost | undefined;
  startedMs: number;
  leases: number;
}

/** The right to use a host, taken from the place that it is in. */
export interface Place {
  readonly instance: Instance;
  readonly host: ModelHost;
}

/** The hosts that a model runs in. One that crashes is started again; when they do nothing else, after a long while. */
export class SupervisedHosts {
  readonly #options: SupervisedHostsOptions;
  readonly #instances: Instance[];
  readonly #crashes = new CrashHistory();
  readonly #over = new AbortController();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #starting = new Set<Promise<void>>();

  constructor(options: SupervisedHostsOptions) {
    this.#options = options;
    this.#instances = Array.from({ length: options.instances }, () => ({ host: undefined, startedMs: 0, leases: 0 }));
  }

  /** Those that run now. */
  get running(): readonly ModelHost[] {
    return this.#instances.flatMap(({ host }) => host ?? []);
  }

  /** Starts all of them, and throws what the first one threw that could not be started, while others may go on. */
  async start(): Promise<void> {
    await Promise.all(this.#instances.map((instance) => this.#start(instance)));
  }

  /** Whether all of them run. */
  get complete(): boolean {
    return this.#instances.every(({ host }) => host);
  }

  /** A place on the least busy host; `undefined` where none runs. */
  take(): Place | undefined {
    let least: Instance | undefined;
    for (const instance of this.#instances) {
      if (instance.host && (!least || instance.leases < least.leases)) least = instance;
    }
    if (!least?.host) return undefined;
    least.leases++;
    return { instance: least, host: least.host };
  }

  giveBack({ instance, host }: Place): void {
    instance.leases--;
    if (instance.host === host) this.#crashes.worked();
  }

  /** What they take now, in bytes. */
  async memoryBytes(): Promise<number> {
    const each = await Promise.all(this.running.map((host) => host.memoryBytes()));
    return each.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Starts nothing any more, and gives up what is being started. */
  giveUp(reason: ManagerError): void {
    this.#over.abort(reason);
    for (const timer of this.#timers) clearTimeout(timer);
  }

  /** Resolves when those that are being started have come to their end, whichever. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#starting);
  }

  /** Ends all that run. To be called when nothing is started any more. */
  async stop(): Promise<void> {
    const { running } = this;
    for (const instance of this.#instances) instance.host = undefined;
    const stopped = await Promise.allSettled(running.map((host) => host.stop()));
    const failed = stopped.find((result) => result.status === 'rejected');
    if (failed) throw failed.reason;
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
    // A run that wanted too much memory says nothing of the model: or one caller could have it given up for all.
    const upMs = TOO_MUCH_MEMORY.has(error.code) ? Number.POSITIVE_INFINITY : performance.now() - instance.startedMs;
    this.#recover(instance, error, upMs);
  }

  /** Starts an instance again that has crashed, or could not be started. */
  #recover(instance: Instance, error: ManagerError, upMs: number): void {
    if (this.#over.signal.aborted) return;
    const delayMs = this.#crashes.crashed(upMs);
    this.#after(delayMs ?? COOL_DOWN_MS, () => {
      this.#start(instance).then(
        () => this.#options.onUp(),
        (failure) => this.#recover(instance, failure, 0),
      );
    });
    // Last: whoever is told of it may give up all of this.
    this.#options.onDown(error, delayMs === undefined);
  }

  #after(delayMs: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, delayMs).unref();
    this.#timers.add(timer);
  }
}
