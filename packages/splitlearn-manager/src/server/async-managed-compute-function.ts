import {
  type CallContext,
  type ComputeFunction,
  type ComputeRequest,
  type ComputeResponse,
  type ServiceInfo,
  startWith,
  streamByCompute,
} from '@splitlearn/comm';
import type { AsyncModelManager } from '../models/async-model-manager.js';
import type { MetricsCollector } from '../monitoring/metrics-collector.js';
import type { ModelRouter } from '../routing/model-router.js';
import { VERSION } from '../version.js';

export interface AsyncManagedComputeFunctionOptions {
  readonly router: ModelRouter;
  readonly modelManager: AsyncModelManager;
  readonly metrics: MetricsCollector;
}

/** The manager's whole story: route the request, lease the model, run it, record it. */
export class AsyncManagedComputeFunction implements ComputeFunction {
  readonly #router: ModelRouter;
  readonly #modelManager: AsyncModelManager;
  readonly #metrics: MetricsCollector;

  constructor({ router, modelManager, metrics }: AsyncManagedComputeFunctionOptions) {
    this.#router = router;
    this.#modelManager = modelManager;
    this.#metrics = metrics;
  }

  async compute(request: ComputeRequest, context: CallContext): Promise<ComputeResponse> {
    const modelId = this.#router.routeToModel(request);
    const lease = await this.#modelManager.acquire(modelId, context);
    try {
      const { outputs, timing } = await this.#metrics.measure(modelId, () => lease.model.compute(request, context));
      return timing ? { model: modelId, outputs, timing } : { model: modelId, outputs };
    } finally {
      lease.release();
    }
  }

  /** A session stays with the model that its first request is for, and holds it until it ends. */
  async *stream(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse> {
    const iterator = requests[Symbol.asyncIterator]();
    const first = await iterator.next();
    if (first.done) return;
    const modelId = this.#router.routeToModel(first.value);
    await using lease = await this.#modelManager.acquire(modelId, context);
    const all = startWith(first.value, { [Symbol.asyncIterator]: () => iterator });
    const responses = lease.model.stream?.(all, context) ?? streamByCompute(lease.model, all, context);
    for await (const response of this.#metrics.measureStream(modelId, responses)) yield { ...response, model: modelId };
  }

  info(): ServiceInfo {
    return { name: '@splitlearn/manager', version: VERSION, models: this.#modelManager.listModels() };
  }
}
