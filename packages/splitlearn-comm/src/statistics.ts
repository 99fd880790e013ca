import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import type { CommErrorCode } from './errors.js';

/** Latencies in milliseconds, the percentiles to within 1 %; 0 while there are none. */
export interface LatencySummary {
  readonly mean: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/** A longer one counts as one that took a day. */
const MAX_MICROS = 24 * 3600 * 1e6;

/** Latencies in constant memory, to within 1 % (https://hdrhistogram.github.io/HdrHistogram/). */
export class LatencyHistogram {
  /** Made with the first latency: it takes 30 KB, and three digits instead of two would take 200. */
  #micros: RecordableHistogram | undefined;
  #sumMs = 0;

  record(latencyMs: number): void {
    this.#sumMs += latencyMs;
    this.#micros ??= createHistogram({ highest: MAX_MICROS, figures: 2 });
    this.#micros.record(Math.min(Math.max(1, Math.round(latencyMs * 1000)), MAX_MICROS));
  }

  read(): LatencySummary {
    const micros = this.#micros;
    if (!micros) return { mean: 0, p50: 0, p95: 0, p99: 0 };
    const percentileMs = (percentile: number) => micros.percentile(percentile) / 1000;
    return { mean: this.#sumMs / micros.count, p50: percentileMs(50), p95: percentileMs(95), p99: percentileMs(99) };
  }
}

/** How a server's or client's calls have gone since it was made. */
export interface CallStatistics {
  /** Calls that have begun; a stream is one call. */
  readonly requests: number;
  readonly inFlight: number;
  readonly succeeded: number;
  /** Failed calls by error code; codes that never occurred are absent. */
  readonly failed: Readonly<Partial<Record<CommErrorCode, number>>>;
  /** From a succeeded call's beginning to its end. */
  readonly latencyMs: LatencySummary;
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** Counts calls and their latencies in constant memory. */
export class CallRecorder {
  readonly #latency = new LatencyHistogram();
  readonly #failed: Partial<Record<CommErrorCode, number>> = {};
  #requests = 0;
  #inFlight = 0;
  #succeeded = 0;
  #bytesSent = 0;
  #bytesReceived = 0;

  /** Counts a call; the result is called once, with the error's code when it failed. */
  begin(): (failure?: CommErrorCode) => void {
    const startedMs = performance.now();
    this.#requests++;
    this.#inFlight++;
    return (failure) => {
      this.#inFlight--;
      if (failure) this.#failed[failure] = (this.#failed[failure] ?? 0) + 1;
      else {
        this.#succeeded++;
        this.#latency.record(performance.now() - startedMs);
      }
    };
  }

  sent<T extends { readonly byteLength: number }>(message: T): T {
    this.#bytesSent += message.byteLength;
    return message;
  }

  received<T extends { readonly byteLength: number }>(message: T): T {
    this.#bytesReceived += message.byteLength;
    return message;
  }

  read(): CallStatistics {
    return {
      requests: this.#requests,
      inFlight: this.#inFlight,
      succeeded: this.#succeeded,
      failed: { ...this.#failed },
      latencyMs: this.#latency.read(),
      bytesSent: this.#bytesSent,
      bytesReceived: this.#bytesReceived,
    };
  }
}
