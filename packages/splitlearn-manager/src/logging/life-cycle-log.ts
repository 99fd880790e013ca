import type { Logger } from '@splitlearn/comm';
import type { AsyncModelManager } from '../models/async-model-manager.js';
import type { ManagerEvents } from '../models/manager-events.js';
import type { ManagedModelInfo } from '../models/model-info.js';
import { isStructured, type LogFields, type StructuredLogger } from './logger.js';

type Event<Name extends keyof ManagerEvents> = ManagerEvents[Name][0];
type Level = 'debug' | 'info' | 'error';

/**
 * Writes one line for each event in the life of a server and its models. A logger that takes no fields, as `console`, is
 * told none of it: it hears of what goes wrong only. That a model has crashed is told by whoever looks after its process.
 */
export class LifeCycleLog {
  readonly #logger: StructuredLogger | undefined;
  /** What is being downloaded. */
  readonly #downloads = new Set<string>();

  constructor(logger: Logger) {
    this.#logger = isStructured(logger) ? logger : undefined;
  }

  /** Follows a manager's models. The result ends that. */
  follow(manager: Pick<AsyncModelManager, 'on' | 'off' | 'getModel'>): () => void {
    if (!this.#logger) return () => {};
    const onState = (event: Event<'state'>) => this.#state(event, manager.getModel(event.modelId));
    const onEviction = (event: Event<'eviction'>) => this.#eviction(event);
    const onDownload = (event: Event<'download'>) => this.#download(event);
    manager.on('state', onState).on('eviction', onEviction).on('download', onDownload);
    return () => manager.off('state', onState).off('eviction', onEviction).off('download', onDownload);
  }

  listening(host: string, port: number): void {
    this.#tell('info', 'listening', { host, port }, `the server listens on ${host}:${port}`);
  }

  /** The server takes no new requests. */
  draining(graceMs?: number): void {
    this.#tell(
      'info',
      'draining',
      { graceMs },
      'the server drains: it takes no new requests and finishes those it has',
    );
  }

  stopped(): void {
    this.#tell('info', 'stopped', {}, 'the server has stopped');
  }

  #state({ modelId, state, error }: Event<'state'>, info: ManagedModelInfo | undefined): void {
    const fields = { model: modelId, ...(error && { code: error.code }) };
    const name = `model '${modelId}'`;
    if (state === 'LOADING' && error) {
      this.#tell('info', 'model-restarting', fields, `${name} is started again, because it has crashed`);
    } else if (state === 'LOADING') this.#tell('info', 'model-loading', fields, `${name} is being loaded`);
    else if (state === 'READY') {
      const { engine, isolation, threads, pid } = info ?? {};
      const loadMs = Math.round(info?.loadMs ?? 0);
      this.#tell(
        'info',
        'model-ready',
        { ...fields, engine, isolation, threads, modelPid: pid, loadMs },
        `${name} is ready`,
      );
    } else if (state === 'DRAINING') this.#tell('debug', 'model-draining', fields, `${name} takes no new requests`);
    else if (state === 'UNLOADED') this.#tell('info', 'model-unloaded', fields, `${name} has been unloaded`);
    else
      this.#tell('error', 'model-failed', fields, `${name} has failed: ${error?.message ?? 'nothing is known of why'}`);
  }

  #eviction({ modelId, reason, forModelId, idleMs, reclaimedBytes }: Event<'eviction'>): void {
    const forWhom = forModelId === undefined ? '' : `, for model '${forModelId}'`;
    const fields = { model: modelId, reason, forModel: forModelId, idleMs, reclaimedBytes };
    this.#tell('info', 'model-evicted', fields, `model '${modelId}' was evicted: ${reason}${forWhom}`);
  }

  /** Its first report and its last; there are some ten a second. */
  #download({ repository, commit, filesDone, files, totalBytes }: Event<'download'>): void {
    const download = `${repository}@${commit}`;
    const fields = { repository, commit, files, totalBytes };
    const isDone = filesDone === files;
    if (!isDone && !this.#downloads.has(download)) {
      this.#downloads.add(download);
      this.#tell('info', 'downloading', fields, `${repository} is being downloaded`);
    }
    if (isDone && this.#downloads.delete(download)) {
      this.#tell('info', 'downloaded', fields, `${repository} has been downloaded`);
    }
  }

  #tell(level: Level, event: string, fields: LogFields, message: string): void {
    this.#logger?.[level]({ event, ...fields }, message);
  }
}
