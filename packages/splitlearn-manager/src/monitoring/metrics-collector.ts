import { LatencyHistogram, type LatencySummary } from '@splitlearn/comm';
import { Counter, Histogram, Registry } from 'prom-client';

/** How one model's requests have gone. */
export interface ModelStatistics {
  readonly requests: number;
  readonly succeeded: number;
  readonly failed: number;
  /** Milliseconds of succeeded requests. */
  readonly latencyMs: LatencySummary;
}

export interface ManagerStatistics {
  /** By model id; a model that has been unloaded stays, so that nothing that was counted is lost. */
  readonly requestsByModel: Readonly<Record<string, ModelStatistics>>;
}

interface Recorded {
  succeeded: number;
  failed: number;
  readonly latency: LatencyHistogram;
}

/** Counts what happens to models, for people (`getStatistics`) and for Prometheus (`metrics`). */
export class MetricsCollector {
  readonly #registry = new Registry();
  readonly #models = new Map<string, Recorded>();
  readonly #requestSeconds = new Histogram({
    name: 'splitlearn_request_duration_seconds',
    help: 'Time from a request reaching its model to its answer.',
    labelNames: ['model', 'outcome'],
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    registers: [this.#registry],
  });
  readonly #loadSeconds = new Histogram({
    name: 'splitlearn_model_load_duration_seconds',
    help: 'Time that loading a model took.',
    labelNames: ['model', 'outcome'],
    buckets: [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300],
    registers: [this.#registry],
  });
  readonly #unloads = new Counter({
    name: 'splitlearn_model_unloads_total',
    help: 'Models that were unloaded.',
    labelNames: ['model'],
    registers: [this.#registry],
  });

  readonly #evictions = new Counter({
    name: 'splitlearn_model_evictions_total',
    help: 'Models that were evicted, by reason.',
    labelNames: ['model', 'reason'],
    registers: [this.#registry],
  });

  /** Runs one request of a model and records how it went. */
  async measure<T>(modelId: string, request: () => Promise<T>): Promise<T> {
    const startedMs = performance.now();
    let success = false;
    try {
      const result = await request();
      success = true;
      return result;
    } finally {
      this.recordInferenceRequest(modelId, (performance.now() - startedMs) / 1000, success);
    }
  }

  /** The same for a session, from its first request to its last response. */
  async *measureStream<T>(modelId: string, responses: AsyncIterable<T>): AsyncGenerator<T, void> {
    const startedMs = performance.now();
    let success = false;
    try {
      yield* responses;
      success = true;
    } finally {
      this.recordInferenceRequest(modelId, (performance.now() - startedMs) / 1000, success);
    }
  }

  recordInferenceRequest(modelId: string, durationSeconds: number, success: boolean): void {
    const recorded = this.#recorded(modelId);
    if (success) {
      recorded.succeeded++;
      recorded.latency.record(durationSeconds * 1000);
    } else recorded.failed++;
    this.#requestSeconds.observe({ model: modelId, outcome: outcome(success) }, durationSeconds);
  }

  recordModelLoad(modelId: string, durationSeconds: number, success: boolean): void {
    this.#loadSeconds.observe({ model: modelId, outcome: outcome(success) }, durationSeconds);
  }

  recordModelUnload(modelId: string): void {
    this.#unloads.inc({ model: modelId });
  }

  recordEviction(modelId: string, reason: string): void {
    this.#evictions.inc({ model: modelId, reason });
  }

  getStatistics(): ManagerStatistics {
    const byModel = [...this.#models].map(([modelId, { succeeded, failed, latency }]): [string, ModelStatistics] => [
      modelId,
      { requests: succeeded + failed, succeeded, failed, latencyMs: latency.read() },
    ]);
    return { requestsByModel: Object.fromEntries(byModel) };
  }

  /** Everything in Prometheus' text format. */
  metrics(): Promise<string> {
    return this.#registry.metrics();
  }

  #recorded(modelId: string): Recorded {
    const present = this.#models.get(modelId);
    if (present) return present;
    const recorded = { succeeded: 0, failed: 0, latency: new LatencyHistogram() };
    this.#models.set(modelId, recorded);
    return recorded;
  }
}

function outcome(success: boolean): 'success' | 'error' {
  return success ? 'success' : 'error';
}
