import { CommError } from '@splitlearn/comm';
import type { ResolvedBatching } from './batching-config.js';
import { FairQueue } from './fair-queue.js';
import type { Job } from './job.js';
import { RunTimes } from './run-times.js';

export interface SchedulerOptions<Payload> {
  /** For messages. */
  readonly modelId: string;
  /** How many jobs may wait for the one that runs; 0 refuses whatever comes while one runs. */
  readonly maxQueue: number;
  /** How jobs of one group are computed together. Default: not at all. */
  readonly batching?: ResolvedBatching | undefined;
  /** Computes jobs that have been waiting, in one run. Nothing else begins until `finish` is called. */
  begin(jobs: readonly Job<Payload>[]): void;
  /** Told of a job that was let in, and now never begins. */
  refuse(job: Job<Payload>, error: CommError): void;
  /** Milliseconds on a monotonic clock. Default: `performance.now`. */
  readonly now?: () => number;
  /** Calls back after some milliseconds, unless what it returns is called first. */
  readonly setTimer?: (callback: () => void, ms: number) => () => void;
  /** Calls back when all that has arrived by now has been read. Default: `setImmediate`. */
  readonly defer?: (callback: () => void) => void;
}

interface Running {
  readonly kind: 'run' | 'stream';
  readonly rows: number;
  readonly startedMs: number;
}

/**
 * How much longer than expected a wait may become, as a factor: work that is let in only just is computed for nobody when
 * the wait is any longer. More costs nothing: under overload the queue is shorter, but never empty.
 */
const WAIT_MARGIN = 1.5;

/** What a caller is told when nothing is known of how long runs take, in milliseconds. */
const UNKNOWN_RETRY_MS = 50;

/**
 * Decides what a model's thread computes next: one run at a time, of one job or of several of the same group. It lets
 * no more jobs wait than it may, nor such as would wait past their deadlines, and never begins one whose time is up.
 * While it computes nothing, jobs that can be computed together wait for `maxQueueDelayMs`, and for no longer than there is
 * nothing else to do; even without a delay those that arrive in one turn of the event loop go together.
 */
export class Scheduler<Payload> {
  readonly #modelId: string;
  readonly #maxQueue: number;
  readonly #batching: ResolvedBatching | undefined;
  readonly #begin: SchedulerOptions<Payload>['begin'];
  readonly #refuse: SchedulerOptions<Payload>['refuse'];
  readonly #now: () => number;
  readonly #setTimer: NonNullable<SchedulerOptions<Payload>['setTimer']>;
  readonly #defer: NonNullable<SchedulerOptions<Payload>['defer']>;
  readonly #queue = new FairQueue<Payload>();
  readonly #times = new RunTimes();
  readonly #dispatchLater = () => {
    this.#deferred = false;
    this.#dispatch();
  };
  /** Of those that wait: how many are streams, how many run alone, and the rows of the others. */
  readonly #waiting = { streams: 0, runs: 0, rows: 0 };
  /** The rows of a batch while more wait than are in it: a moving average. */
  #fullRows: number;
  #running: Running | undefined;
  #deferred = false;
  #clearTimer: (() => void) | undefined;
  #closed = false;

  constructor(options: SchedulerOptions<Payload>) {
    this.#modelId = options.modelId;
    this.#maxQueue = options.maxQueue;
    this.#batching = options.batching;
    this.#fullRows = options.batching?.maxBatchSize ?? 1;
    this.#begin = options.begin;
    this.#refuse = options.refuse;
    this.#now = options.now ?? (() => performance.now());
    this.#setTimer = options.setTimer ?? startTimer;
    this.#defer = options.defer ?? setImmediate;
  }

  /** How many jobs wait. */
  get length(): number {
    return this.#queue.length;
  }

  /**
   * Lets a job in: it begins, now or later, or `refuse` is told why not, unless it is cancelled.
   *
   * @throws CommError `RESOURCE_EXHAUSTED` with `retryAfterMs`, when too many wait (reason `QUEUE_FULL`), or when they
   * take until the job's deadline (`OVERLOADED`); `DEADLINE_EXCEEDED` when that has passed; `UNAVAILABLE` after `close`.
   */
  submit(job: Job<Payload>): void {
    const nowMs = this.#now();
    job.arrivedMs = nowMs;
    if (this.#closed) throw this.#stopping();
    if (job.deadlineMs <= nowMs) throw this.expired(job);
    const idle = !this.#running;
    if (idle && job.group === undefined && this.#queue.length === 0) {
      this.#start([job]);
      return;
    }
    // While nothing runs, the first of those that wait is about to.
    if (this.#queue.length >= this.#maxQueue + (idle ? 1 : 0)) throw this.#full(nowMs);
    // What finds nothing here is computed whatever it may take: else one run that took too long would shut out all others.
    if (!idle || this.#queue.length > 0) this.#assertInTime(job, nowMs);
    this.#queue.push(job);
    this.#count(job, 1);
    if (!idle || this.#deferred) return;
    this.#deferred = true;
    this.#defer(this.#dispatchLater);
  }

  /** Takes back a job that has not begun; false for one that has, or is not known any more. */
  cancel(job: Job<Payload>): boolean {
    if (!this.#queue.remove(job)) return false;
    this.#count(job, -1);
    return true;
  }

  /**
   * What was begun is over, and the next may begin.
   *
   * @param outcome - `failed`: how long it took says nothing of the next ones.
   */
  finish(outcome: 'done' | 'failed'): void {
    const running = this.#running;
    if (!running) return;
    this.#running = undefined;
    const ms = this.#now() - running.startedMs;
    if (running.kind === 'stream') this.#times.recordStream(ms);
    else if (outcome === 'done') this.#times.recordRun(running.rows, ms);
    this.#dispatch();
  }

  /** Refuses all that wait and all that come. What runs goes on. */
  close(): void {
    this.#closed = true;
    this.#clearTimer?.();
    for (const job of [...this.#queue.jobs()]) this.#drop(job, this.#stopping());
  }

  /** What becomes of a job whose time is up before it has begun. */
  expired(job: Job<Payload>, what = 'the deadline has passed'): CommError {
    const message = `${what} (after ${this.waitedMs(job)} ms in the queue of model '${this.#modelId}'; the work never began)`;
    return new CommError('DEADLINE_EXCEEDED', message, { reason: 'EXPIRED_IN_QUEUE' });
  }

  waitedMs(job: Job<Payload>): number {
    return Math.round(this.#now() - job.arrivedMs);
  }

  #dispatch(): void {
    this.#clearTimer?.();
    this.#clearTimer = undefined;
    if (this.#running) return;
    const nowMs = this.#now();
    const leader = this.#nextInTime(nowMs);
    if (!leader) return;
    const delayMs = this.#delayMs(leader, nowMs);
    if (delayMs > 0) {
      this.#clearTimer = this.#setTimer(() => this.#dispatch(), delayMs);
      return;
    }
    const jobs = this.#queue.takeBatch(this.#rowsOfBatch(leader), (job) => job.deadlineMs > nowMs);
    for (const job of jobs) this.#count(job, -1);
    this.#start(jobs);
    if (leader.group !== undefined && this.#waiting.rows > 0) this.#noteFull(jobs);
  }

  #start(jobs: readonly Job<Payload>[]): void {
    let rows = 0;
    for (const job of jobs) rows += job.rows;
    this.#running = { kind: jobs[0]?.kind ?? 'run', rows, startedMs: this.#now() };
    this.#begin(jobs);
  }

  /** The job whose turn it is; those before it that it is too late for are refused. */
  #nextInTime(nowMs: number): Job<Payload> | undefined {
    for (let job = this.#queue.next; job; job = this.#queue.next) {
      const leftMs = job.deadlineMs - nowMs;
      if (leftMs <= 0) {
        this.#drop(job, this.expired(job));
        continue;
      }
      const { fastestMs } = this.#times;
      // The last one is always begun: else, after a run that took too long, nothing might ever show that others do not.
      if (job.kind === 'stream' || leftMs >= fastestMs || this.#queue.length === 1) return job;
      const least = `a run takes ${ms(fastestMs)} ms at least, and the deadline is in ${ms(leftMs)} ms`;
      this.#drop(job, this.expired(job, least));
    }
    return undefined;
  }

  /** How long the jobs that are there should wait for others. */
  #delayMs(leader: Job<Payload>, nowMs: number): number {
    const { maxQueueDelayMs = 0, maxBatchSize = 1, preferredBatchSizes } = this.#batching ?? {};
    if (maxQueueDelayMs === 0 || leader.group === undefined) return 0;
    if (this.#queue.rows >= Math.min(maxBatchSize, ...(preferredBatchSizes ?? []))) return 0;
    const runMs = WAIT_MARGIN * this.#times.runMs(this.#queue.rows);
    let untilMs = Number.POSITIVE_INFINITY;
    for (const { group, arrivedMs, deadlineMs } of this.#queue.jobs()) {
      if (group !== leader.group) return 0;
      untilMs = Math.min(untilMs, arrivedMs + maxQueueDelayMs, deadlineMs - runMs);
    }
    return untilMs - nowMs;
  }

  #rowsOfBatch(leader: Job<Payload>): number {
    if (!this.#batching || leader.group === undefined) return leader.rows;
    const { maxBatchSize, preferredBatchSizes } = this.#batching;
    if (!preferredBatchSizes) return maxBatchSize;
    let rows = 0;
    for (const job of this.#queue.jobs()) if (job.group === leader.group) rows += job.rows;
    const possible = preferredBatchSizes.filter((size) => size <= rows);
    return possible.length > 0 ? Math.max(...possible) : maxBatchSize;
  }

  /** A batch is as large as it could be had: how large that is depends on how many groups there are. */
  #noteFull(jobs: readonly Job<Payload>[]): void {
    let rows = 0;
    for (const job of jobs) rows += job.rows;
    this.#fullRows = 0.8 * this.#fullRows + 0.2 * rows;
  }

  #drop(job: Job<Payload>, error: CommError): void {
    if (this.cancel(job)) this.#refuse(job, error);
  }

  #assertInTime(job: Job<Payload>, nowMs: number): void {
    const leftMs = job.deadlineMs - nowMs;
    if (leftMs === Number.POSITIVE_INFINITY) return;
    const runMs = job.kind === 'stream' ? 0 : this.#times.runMs(job.rows);
    const runningMs = this.#runningMs(nowMs);
    const drainMs = this.#drainMs();
    // Mostly there is time for all that waits, and no need to look at who comes first.
    if (WAIT_MARGIN * (runningMs + drainMs) + runMs <= leftMs) return;
    const share = this.#queue.rowsAhead(job.priority, job.client) / Math.max(1, this.#queue.rows);
    const waitMs = runningMs + drainMs * share;
    if (WAIT_MARGIN * waitMs + runMs <= leftMs) return;
    const retryAfterMs = Math.max(1, Math.round(WAIT_MARGIN * waitMs + runMs - leftMs));
    const reasons = `${this.#queue.length} requests wait, so this one would begin in some ${ms(waitMs)} ms`;
    const message =
      `model '${this.#modelId}' is overloaded: ${reasons} and take ${ms(runMs)} ms, but its deadline is in ` +
      `${ms(leftMs)} ms; try again in ${retryAfterMs} ms, or give it more time`;
    throw new CommError('RESOURCE_EXHAUSTED', message, { reason: 'OVERLOADED', retryAfterMs });
  }

  #full(nowMs: number): CommError {
    // Until all that are here have had their turn.
    const aheadMs = Math.round(this.#runningMs(nowMs) + this.#drainMs());
    const retryAfterMs = aheadMs > 0 ? aheadMs : UNKNOWN_RETRY_MS;
    const running = this.#running ? 'one request runs' : 'none runs yet';
    return new CommError(
      'RESOURCE_EXHAUSTED',
      `model '${this.#modelId}' is overloaded: ${running} and ${this.#queue.length} wait, as many as maxQueue allows; ` +
        `try again in ${retryAfterMs} ms`,
      { reason: 'QUEUE_FULL', retryAfterMs },
    );
  }

  #stopping(): CommError {
    return new CommError('UNAVAILABLE', `model '${this.#modelId}' is being stopped`, { reason: 'STOPPING' });
  }

  /** Until what runs is over. */
  #runningMs(nowMs: number): number {
    if (!this.#running) return 0;
    const { kind, rows, startedMs } = this.#running;
    const expectedMs = kind === 'stream' ? this.#times.streamMs : this.#times.runMs(rows);
    return Math.max(0, expectedMs - (nowMs - startedMs));
  }

  /** How long all that waits will take. */
  #drainMs(): number {
    const { streams, runs, rows } = this.#waiting;
    const most = this.#fullRows;
    const batches = Math.floor(rows / most);
    const rest = rows % most;
    return (
      streams * this.#times.streamMs +
      runs * this.#times.runMs(1) +
      (batches > 0 ? batches * this.#times.runMs(most) : 0) +
      (rest > 0 ? this.#times.runMs(rest) : 0)
    );
  }

  #count(job: Job<Payload>, sign: 1 | -1): void {
    if (job.kind === 'stream') this.#waiting.streams += sign;
    else if (job.group === undefined) this.#waiting.runs += sign;
    else this.#waiting.rows += sign * job.rows;
  }
}

function startTimer(callback: () => void, ms: number): () => void {
  const timer = setTimeout(callback, ms);
  return () => clearTimeout(timer);
}

function ms(value: number): string {
  return value < 10 ? String(Math.round(value * 10) / 10) : String(Math.round(value));
}
