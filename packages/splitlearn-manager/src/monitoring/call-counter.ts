import type { RequestRecord } from './metrics-requests.js';
import type { CallCounts } from './sustained.js';

/** What the scheduler and others refuse a request with because there is too much to do. One that is too large is none. */
const REFUSALS: ReadonlySet<string> = new Set(['RESOURCE_EXHAUSTED', 'QUEUE_FULL', 'OVERLOADED']);

/** Failures that are nobody's fault but the server's, or its models'. */
const FAULTS: ReadonlySet<string> = new Set([
  ...['INTERNAL', 'UNKNOWN', 'UNAVAILABLE', 'DATA_LOSS'],
  ...['MODEL_CRASHED', 'MODEL_FAILED', 'MODEL_LOAD_FAILED'],
]);

const NONE: CallCounts = { finished: 0, refused: 0, failed: 0 };

/** Counts what health has to know of requests: all of them, and those of each model. */
export class CallCounter {
  readonly #byModel = new Map<string, CallCounts>();
  #all = NONE;

  /** A request has ended, `OK` or with the code that its caller was told. */
  record({ modelId, code }: Pick<RequestRecord, 'modelId' | 'code'>): void {
    const refused = REFUSALS.has(code) ? 1 : 0;
    const failed = FAULTS.has(code) ? 1 : 0;
    const plusOne = (counts: CallCounts): CallCounts => ({
      finished: counts.finished + 1,
      refused: counts.refused + refused,
      failed: counts.failed + failed,
    });
    this.#all = plusOne(this.#all);
    // One that reached no model says nothing of any.
    if (modelId !== '') this.#byModel.set(modelId, plusOne(this.#byModel.get(modelId) ?? NONE));
  }

  all(): CallCounts {
    return this.#all;
  }

  ofModel(modelId: string): CallCounts {
    return this.#byModel.get(modelId) ?? NONE;
  }
}
