import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import type { CommErrorCode } from './errors.js';

/** Latencies in milliseconds, to three digits; 0 while there are none. */
export interface LatencySummary {
  readonly mean: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/** Latencies in constant memory, to three digits (https://hdrhistogram.github.io/HdrHistogram/). */
export class LatencyHistogram {
  readonly #micros: RecordableHistogram = createHistogram({ figures: 3 });

  record(latencyMs: number): void {
    this.#micros.record(Math.max(1, Math.round(latencyMs * 1000)));
  }

  read(): LatencySummary {
    const micros = this.#micros;
    if (micros.count === 0) return { mean: 0, p50: 0, p95: 0, p99: 0 };
    const percentileMs = (percentile: number) => micros.percentile(percentile) / 1000;
    return { mean: micros.mean / 1000, p50: percentileMs(50), p95: percentileMs(95), p99: percentileMs(99) };
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
