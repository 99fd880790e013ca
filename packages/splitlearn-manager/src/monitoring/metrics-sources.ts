import type { CallStatistics } from '@splitlearn/comm';
import { Counter, Gauge } from 'prom-client';
import type { ManagedModelInfo } from '../models/model-info.js';
import type { ModelState } from '../models/model-state.js';
import type { ResourceUsage } from '../resources/resource-manager.js';
import { VERSION } from '../version.js';
import type { AnyRegistry } from './metrics-registry.js';

/** What is known elsewhere, and is read whenever the metrics are. A source that throws is left out of them. */
export interface MetricsSources {
  /** All models that are known now: `modelManager.listModels()`. */
  readonly models?: () => readonly ManagedModelInfo[];
  /** `resourceManager.getCurrentUsage()`, after the GPUs have been asked where there are any. */
  readonly resources?: () => ResourceUsage | Promise<ResourceUsage>;
  /** The calls of the gRPC server: its `getStatistics()`. */
  readonly calls?: () => CallStatistics;
  /** The connections of the gRPC server: its `getConnectionStatistics()`. */
  readonly connections?: () => { readonly connections: number };
}

const STATES: readonly ModelState[] = ['LOADING', 'READY', 'DRAINING', 'UNLOADED', 'FAILED'];

/**
 * Writes the metrics that nobody has to keep up to date, because they are read where they are known, into a registry that
 * is made anew each time: so what is gone, as a model that was unloaded, is gone from them, and what nobody knows is not 0.
 */
export async function writeSources(sources: MetricsSources, registry: AnyRegistry): Promise<void> {
  const writer = new MetricsWriter(registry);
  writer.gauge('splitlearn_build_info', 'The version of the manager; always 1.', [[{ version: VERSION }, 1]]);
  const [models, resources, calls, connections] = await Promise.all([
    attempt(sources.models),
    attempt(sources.resources),
    attempt(sources.calls),
    attempt(sources.connections),
  ]);
  if (models) writeModels(writer, models);
  if (resources) writeResources(writer, resources);
  if (calls) writeCalls(writer, calls);
  if (connections) {
    writer.gauge('splitlearn_server_connections', 'Connections that the server has now.', connections.connections);
  }
}

async function attempt<T>(read: (() => T | Promise<T>) | undefined): Promise<T | undefined> {
  try {
    return await read?.();
  } catch {
    return undefined;
  }
}

function writeModels(writer: MetricsWriter, models: readonly ManagedModelInfo[]): void {
  const byModel = (value: (model: ManagedModelInfo) => number): Samples =>
    models.map((model) => [{ model: model.modelId }, value(model)]);
  writer.gauge(
    'splitlearn_model_info',
    'The models that are known; always 1.',
    models.map(({ modelId, engine, revision = '', digest = '' }) => [{ model: modelId, engine, revision, digest }, 1]),
  );
  writer.gauge(
    'splitlearn_model_state',
    'Whether a model is in a state; 1 for one of them, 0 for all others.',
    models.flatMap(({ modelId: model, state }) =>
      STATES.map((each): Sample => [{ model, state: each }, each === state ? 1 : 0]),
    ),
  );
  writer.gauge(
    'splitlearn_model_memory_bytes',
    'Memory that a model takes; 0 while it is not loaded.',
    byModel(({ memoryBytes }) => memoryBytes),
  );
  writer.gauge(
    'splitlearn_requests_in_flight',
    'Requests and sessions that use a model now.',
    byModel(({ leases }) => leases),
  );
}

function writeResources(writer: MetricsWriter, usage: ResourceUsage): void {
  writer.gauge('splitlearn_memory_limit_bytes', 'What all models may take together.', usage.memoryLimitBytes);
  writer.gauge('splitlearn_memory_reserved_bytes', 'What counts toward the memory limit.', usage.reservedBytes);
  writer.gauge('splitlearn_memory_used_bytes', 'What the models were measured to take.', usage.usedBytes);
  writer.gauge('splitlearn_memory_available_bytes', 'What the machine could still give.', usage.availableBytes);
  const byGpu = (value: (gpu: ResourceUsage['gpus'][number]) => number): Samples =>
    usage.gpus.map((gpu) => [{ gpu: String(gpu.index) }, value(gpu)]);
  writer.gauge(
    'splitlearn_gpu_memory_size_bytes',
    'Memory that a GPU has.',
    byGpu(({ totalBytes }) => totalBytes),
  );
  writer.gauge(
    'splitlearn_gpu_memory_used_bytes',
    'Memory of a GPU that is taken, by whatever process.',
    byGpu(({ usedBytes }) => usedBytes),
  );
  writer.gauge(
    'splitlearn_gpu_memory_reserved_bytes',
    'Memory of a GPU that the models take.',
    byGpu(({ reservedBytes }) => reservedBytes),
  );
}

function writeCalls(writer: MetricsWriter, { inFlight, succeeded, failed, ...calls }: CallStatistics): void {
  writer.gauge('splitlearn_server_calls_in_flight', 'Calls and streams that the server answers now.', inFlight);
  writer.counter('splitlearn_server_calls_total', 'Calls and streams that have ended, by gRPC status.', [
    [{ code: 'OK' }, succeeded],
    ...Object.entries(failed).map(([code, count]): Sample => [{ code }, count]),
  ]);
  writer.counter('splitlearn_server_received_bytes_total', 'Bytes of the requests that came in.', calls.bytesReceived);
  writer.counter('splitlearn_server_sent_bytes_total', 'Bytes of the responses that went out.', calls.bytesSent);
}

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];
type Samples = readonly Sample[];

/** Writes metrics that are what they are: nothing is added to them later. */
class MetricsWriter {
  readonly #registry: AnyRegistry;

  constructor(registry: AnyRegistry) {
    this.#registry = registry;
  }

  gauge(name: string, help: string, values: number | Samples): void {
    const gauge = new Gauge(this.#describe(name, help, values));
    for (const [labels, value] of toSamples(values)) gauge.set(labels, value);
  }

  counter(name: string, help: string, values: number | Samples): void {
    const counter = new Counter(this.#describe(name, help, values));
    for (const [labels, value] of toSamples(values)) counter.inc(labels, value);
  }

  #describe(name: string, help: string, values: number | Samples) {
    const [first] = toSamples(values);
    return { name, help, labelNames: Object.keys(first?.[0] ?? {}), registers: [this.#registry] };
  }
}

function toSamples(values: number | Samples): Samples {
  return typeof values === 'number' ? [[{}, values]] : values;
}
