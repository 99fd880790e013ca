import type { ManagerError } from '../errors.js';
import type { DownloadProgress } from '../sources/hub/progress.js';
import type { EvictionRecord } from './admission.js';
import type { ModelState } from './model-state.js';

/** What a manager tells those who listen. */
export interface ManagerEvents {
  /** A model has entered a state. */
  state: [{ readonly modelId: string; readonly state: ModelState; readonly error?: ManagerError }];
  /** A model was evicted: it is known still, and the next request for it loads it. */
  eviction: [EvictionRecord];
  /** A download has come further. */
  download: [DownloadProgress];
}
