import { COOL_DOWN_MS } from '../models/crash-history.js';
import type { ManagedModelInfo } from '../models/model-info.js';
import type { ModelState } from '../models/model-state.js';
import { type HealthLimits, parseHealthLimits, type ResolvedHealthLimits } from './health-limits.js';
import { type CallCounts, CallShare, Sustained } from './sustained.js';

/** Where a server is in its life. */
export type ServerLifecycle = 'starting' | 'serving' | 'draining' | 'stopped';

/** What health has to know of a model. */
export type CheckedModel = Pick<ManagedModelInfo, 'modelId' | 'state' | 'pinned' | 'failure'>;

/** How late the event loop came round since it was last asked, in milliseconds. */
export interface EventLoopDelay {
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** How a model is. */
export interface ModelHealth {
  /** Whether a request for it is answered now: it is `READY`, it does not fail, and the server serves. */
  readonly serving: boolean;
  readonly state: ModelState;
  /** Why it is not serving. */
  readonly reason?: string;
}

/** How a server is, and why. */
export interface HealthReport {
  /** False only when the process should be restarted. */
  readonly live: boolean;
  /** Whether requests should be sent here. */
  readonly ready: boolean;
  /** In sentences, why the server is not live or not ready; empty when it is both. */
  readonly reasons: readonly string[];
  /** By model id. */
  readonly models: Readonly<Record<string, ModelHealth>>;
}

export interface HealthCheckerOptions {
  /** The models that are known now: `modelManager.listModels()`. */
  readonly models: () => readonly CheckedModel[];
  /** How all requests have ended so far: `CallCounter.all`. Default: nothing is known, and there is no overload by refusals. */
  readonly calls?: () => CallCounts;
  /** The same of the requests of one model: `CallCounter.ofModel`. Default: nothing is known, and no model that is `READY` fails. */
  readonly callsOfModel?: (modelId: string) => CallCounts | undefined;
  readonly limits?: HealthLimits;
}

/**
 * Says whether a server is live and ready, and why not, from what it is told and asks for. It has no timer of its own and
 * touches nothing: `sample` is to be called every second or so, `check` whenever someone wants to know.
 *
 * Not ready: before the server serves and once it drains; when a pinned model is `FAILED` (it crashes again and again, or
 * could not be loaded), or all models are, the only one among them; and when for `afterMs` too large a share of requests
 * is refused or the event loop is late. Other models that are `FAILED` leave the server ready, for the others to serve.
 *
 * A model that could not be loaded is tried again by the next request only, and a server that is not ready gets none: so
 * one that has been `FAILED` for five minutes makes the server not ready no longer, until it fails once more.
 */
export class HealthChecker {
  readonly #options: HealthCheckerOptions;
  readonly #limits: ResolvedHealthLimits;
  readonly #now: () => number;
  readonly #eventLoop: Sustained;
  readonly #shareOfModel = new Map<string, CallShare>();
  /** Since when a model is FAILED. */
  readonly #failedSinceMs = new Map<string, number>();
  #refusals: CallShare | undefined;
  #lifecycle: ServerLifecycle = 'starting';
  #sampledMs: number | undefined;
  /** When the event loop last stood still for too long, and how long. */
  #stuck: { readonly atMs: number; readonly forMs: number } | undefined;

  /** @throws ManagerError `INVALID_CONFIG` for limits that are none. */
  constructor(options: HealthCheckerOptions, /** @internal */ { now = () => performance.now() } = {}) {
    this.#options = options;
    this.#limits = parseHealthLimits(options.limits ?? {});
    this.#now = now;
    const { eventLoopDelayMs: limit, afterMs, recoverAfterMs } = this.#limits;
    this.#eventLoop = new Sustained({ limit, afterMs, recoverAfterMs });
  }

  get lifecycle(): ServerLifecycle {
    return this.#lifecycle;
  }

  /** Where the server is now. */
  enter(lifecycle: ServerLifecycle): void {
    this.#lifecycle = lifecycle;
  }

  /** Looks at what has happened since the last time. */
  sample({ p99Ms, maxMs }: EventLoopDelay): void {
    const nowMs = this.#now();
    const { calls } = this.#options;
    const fromMs = this.#sampledMs ?? nowMs;
    this.#eventLoop.sample(p99Ms, fromMs, nowMs);
    const stoodStillMs = Math.max(maxMs, nowMs - fromMs);
    if (stoodStillMs > this.#limits.stuckMs) this.#stuck = { atMs: nowMs, forMs: stoodStillMs };
    this.#sampledMs = nowMs;
    if (calls) {
      const { finished, refused } = calls();
      this.#refusals ??= new CallShare(this.#shareOptions('refusedShare'), finished, refused, nowMs);
      this.#refusals.sample(finished, refused, nowMs);
    }
    this.#sampleModels(nowMs);
  }

  /** How the server is now. */
  check(): HealthReport {
    const nowMs = this.#now();
    const models = this.#options.models();
    this.#noteFailed(models, nowMs);
    const stuck = this.#whyStuck(nowMs);
    const reasons = [stuck, this.#whyNotServing(), ...this.#crashLoops(models, nowMs), ...this.#overload(nowMs)];
    const said = reasons.filter((reason) => reason !== undefined);
    const byModel = models.map((model): [string, ModelHealth] => [model.modelId, this.#checkModel(model)]);
    return { live: !stuck, ready: said.length === 0, reasons: said, models: Object.fromEntries(byModel) };
  }

  #shareOptions(limit: 'refusedShare' | 'failedShare') {
    const { minCalls, afterMs, recoverAfterMs } = this.#limits;
    return { limit: this.#limits[limit], minCalls, afterMs, recoverAfterMs };
  }

  #sampleModels(nowMs: number): void {
    const models = this.#options.models();
    this.#noteFailed(models, nowMs);
    const known = new Set(models.map(({ modelId }) => modelId));
    for (const modelId of this.#shareOfModel.keys()) if (!known.has(modelId)) this.#shareOfModel.delete(modelId);
    for (const modelId of known) {
      const counts = this.#options.callsOfModel?.(modelId);
      if (!counts) continue;
      const { finished, failed } = counts;
      const share =
        this.#shareOfModel.get(modelId) ?? new CallShare(this.#shareOptions('failedShare'), finished, failed, nowMs);
      this.#shareOfModel.set(modelId, share);
      share.sample(finished, failed, nowMs);
    }
  }

  #noteFailed(models: readonly CheckedModel[], nowMs: number): void {
    const failed = new Set(models.filter(({ state }) => state === 'FAILED').map(({ modelId }) => modelId));
    for (const modelId of this.#failedSinceMs.keys()) if (!failed.has(modelId)) this.#failedSinceMs.delete(modelId);
    for (const modelId of failed) {
      if (!this.#failedSinceMs.has(modelId)) this.#failedSinceMs.set(modelId, nowMs);
    }
  }

  /** It is asked for between two samples as well: where even the samples do not come, something is wrong. */
  #whyStuck(nowMs: number): string | undefined {
    const { stuckMs, recoverAfterMs } = this.#limits;
    if (this.#sampledMs === undefined || this.#lifecycle === 'stopped') return undefined;
    const silentMs = nowMs - this.#sampledMs;
    const recent = this.#stuck && nowMs - this.#stuck.atMs < recoverAfterMs ? this.#stuck.forMs : 0;
    const longestMs = Math.max(silentMs, recent);
    if (longestMs <= stuckMs) return undefined;
    return (
      `the event loop stood still for ${seconds(longestMs)}, and no more than ${seconds(stuckMs)} are allowed: something ` +
      `computes or waits on the server's own thread; restart the process`
    );
  }

  #whyNotServing(): string | undefined {
    switch (this.#lifecycle) {
      case 'starting':
        return 'the server is starting: it loads its models, and then it listens';
      case 'draining':
        return 'the server is draining: it finishes the requests that it has, and takes no new ones';
      case 'stopped':
        return 'the server has stopped';
      case 'serving':
        return undefined;
    }
  }

  #crashLoops(models: readonly CheckedModel[], nowMs: number): string[] {
    const isDown = ({ modelId }: CheckedModel) => {
      const sinceMs = this.#failedSinceMs.get(modelId);
      return sinceMs !== undefined && nowMs - sinceMs < COOL_DOWN_MS;
    };
    const down = models.filter(isDown);
    const all = down.length === models.length;
    if (!all) {
      return down
        .filter(({ pinned }) => pinned)
        .map((model) => `the model '${model.modelId}' is pinned, and FAILED: ${failureOf(model)}`);
    }
    const [only, ...others] = down;
    if (only && others.length === 0) return [`the only model, '${only.modelId}', is FAILED: ${failureOf(only)}`];
    return down.map((model) => `all ${down.length} models are FAILED; '${model.modelId}': ${failureOf(model)}`);
  }

  #overload(nowMs: number): string[] {
    const { refusedShare, eventLoopDelayMs, recoverAfterMs } = this.#limits;
    const reasons: string[] = [];
    const until = (low: string) =>
      `the server is ready again when that was less than ${low} for ${seconds(recoverAfterMs)}`;
    const refusals = this.#refusals?.sustained;
    if (refusals?.active) {
      reasons.push(
        `overload for ${seconds(nowMs - refusals.sinceMs)}: ${percent(refusals.value)} of the last requests were refused ` +
          `with RESOURCE_EXHAUSTED; send less, or add instances or servers; ${until(percent(refusedShare / 2))}`,
      );
    }
    if (this.#eventLoop.active) {
      reasons.push(
        `overload for ${seconds(nowMs - this.#eventLoop.sinceMs)}: the event loop is ${Math.round(this.#eventLoop.value)} ms ` +
          `late (p99); something computes on the server's own thread, or the machine has too few cores; ` +
          until(`${eventLoopDelayMs / 2} ms`),
      );
    }
    return reasons;
  }

  #checkModel(model: CheckedModel): ModelHealth {
    const { modelId, state } = model;
    const failing = this.#shareOfModel.get(modelId)?.sustained;
    let reason = state === 'READY' ? undefined : whyNotReady(model);
    if (!reason && failing?.active) {
      reason = `${percent(failing.value)} of its last requests failed, and not by their callers' fault; see the server's log`;
    }
    reason ??= this.#whyNotServing();
    return { serving: reason === undefined, state, ...(reason !== undefined && { reason }) };
  }
}

function whyNotReady({ state, failure }: CheckedModel): string {
  switch (state) {
    case 'LOADING':
      return failure === undefined ? 'it is being loaded' : `it is being started again: ${failure}`;
    case 'DRAINING':
      return 'it is being unloaded, and finishes the requests that it has';
    case 'UNLOADED':
      return 'it is not loaded; the next request for it loads it';
    default:
      return failure ?? 'it could not be loaded';
  }
}

function failureOf({ failure }: CheckedModel): string {
  return failure ?? 'nobody knows why';
}

function seconds(ms: number): string {
  return ms < 10_000 ? `${Number((ms / 1000).toFixed(1))} s` : `${Math.round(ms / 1000)} s`;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}
