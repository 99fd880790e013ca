import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import type { CommErrorCode } from './errors.js';

/** How a server's or client's calls have gone since it was made. */
export interface CallStatistics {
  /** Calls that have begun; a stream is one call. */
  readonly requests: number;
  readonly inFlight: number;
  readonly succeeded: number;
  /** Failed calls by error code; codes that never occurred are absent. */
  readonly failed: Readonly<Partial<Record<CommErrorCode, number>>>;
  /** Milliseconds from a call's beginning to its end, of succeeded calls, to three digits; 0 while there are none. */
  readonly latencyMs: { readonly mean: number; readonly p50: number; readonly p95: number; readonly p99: number };
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** Counts calls and their latencies in constant memory. */
export class CallRecorder {
  readonly #latencyMicros: RecordableHistogram = createHistogram({ figures: 3 });
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
        this.#latencyMicros.record(Math.max(1, Math.round((performance.now() - startedMs) * 1000)));
      }
    };
  }

  sent(bytes: Uint8Array): Uint8Array {
    this.#bytesSent += bytes.byteLength;
    return bytes;
  }

  received(bytes: Uint8Array): Uint8Array {
    this.#bytesReceived += bytes.byteLength;
    return bytes;
  }

  read(): CallStatistics {
    const latency = this.#latencyMicros;
    const percentile = (p: number) => (this.#succeeded ? latency.percentile(p) / 1000 : 0);
    return {
      requests: this.#requests,
      inFlight: this.#inFlight,
      succeeded: this.#succeeded,
      failed: { ...this.#failed },
      latencyMs: {
        mean: this.#succeeded ? latency.mean / 1000 : 0,
        p50: percentile(50),
        p95: percentile(95),
        p99: percentile(99),
      },
      bytesSent: this.#bytesSent,
      bytesReceived: this.#bytesReceived,
    };
  }
}
