import type { ModelInfo } from '@splitlearn/comm';
import type { Isolation } from '../hosts/start-host.js';
import type { EngineName } from '../runtime/model-runtime.js';
import type { ModelState } from './model-state.js';
import type { RegisteredModel } from './registered-model.js';

/** What is known of a model. */
export interface ManagedModelInfo extends ModelInfo {
  readonly modelId: string;
  readonly state: ModelState;
  readonly source: string;
  readonly engine: EngineName;
  readonly isolation: Isolation;
  /** The commit that its files are of, where they are from the hub. */
  readonly revision?: string;
  /** One sha256 over all its files, where it is known. */
  readonly digest?: string;
  /** The threads that one run computes with; 0 while it is not loaded. */
  readonly threads: number;
  /** Memory that the model takes, in bytes; 0 while it is not loaded. */
  readonly memoryBytes: number;
  /** How long the last load took, in milliseconds. */
  readonly loadMs: number;
  /** How often it was loaded. */
  readonly loads: number;
  /** The process that it runs in; absent while it runs in none. Of several, the first. */
  readonly pid?: number;
  /** The processes that its instances run in. */
  readonly pids: readonly number[];
  /** Requests and sessions that use it now. */
  readonly leases: number;
  /** When it was last asked for, in milliseconds since the epoch. */
  readonly lastUsedAtMs: number;
  /** Never evicted. */
  readonly pinned: boolean;
  /** Milliseconds without a request after which it is unloaded; absent where it never is for that. */
  readonly keepAliveMs?: number;
  /** Why it could not be loaded, or crashed, the last time. */
  readonly failure?: string;
}

export function describeModel(model: RegisteredModel): ManagedModelInfo {
  const { modelId, life, config, located, state, failure, memoryBytes } = model;
  const { source, pinned, keepAliveMs, address } = config;
  const isolation = address === undefined ? config.isolation : 'remote';
  const { engine, revision, digest } = located;
  const info = life?.info ?? {};
  const pids = life?.hosts.flatMap(({ pid }) => pid ?? []) ?? [];
  const [pid] = pids;
  const threads = life?.threads ?? 0;

  const files = { ...(revision !== undefined && { revision }), ...(digest !== undefined && { digest }) };
  return {
    ...info,
    ...{ name: modelId, modelId, state, source, engine, isolation, ...files },
    ...{ threads, memoryBytes, loadMs: life?.loadMs ?? 0, loads: model.loads, pids, pinned },
    ...(pid !== undefined && { pid }),
    ...(keepAliveMs !== undefined && { keepAliveMs }),
    leases: life?.leases ?? 0,
    lastUsedAtMs: model.lastUsedAtMs,
    ...(failure && state !== 'READY' && { failure: failure.message }),
    attributes: {
      ...{ engine, isolation, ...files },
      threads: String(threads),
      memoryBytes: String(memoryBytes),
      ...info.attributes,
    },
  };
}
