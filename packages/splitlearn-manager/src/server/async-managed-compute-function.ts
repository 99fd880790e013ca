import {
  type CallContext,
  type ComputeFunction,
  type ComputeRequest,
  type ComputeResponse,
  type Logger,
  type ServiceInfo,
  startWith,
  streamByCompute,
} from '@splitlearn/comm';
import { isStructured } from '../logging/logger.js';
import type { AsyncModelManager } from '../models/async-model-manager.js';
import type { CallCounter } from '../monitoring/call-counter.js';
import type { MetricsCollector } from '../monitoring/metrics-collector.js';
import { type ObservedRequest, RequestObserver } from '../monitoring/request-observer.js';
import type { ModelRouter } from '../routing/model-router.js';
import { routesAsModels } from '../routing/routes-as-models.js';
import { VERSION } from '../version.js';

export interface AsyncManagedComputeFunctionOptions {
  readonly router: ModelRouter;
  readonly modelManager: AsyncModelManager;
  readonly metrics: MetricsCollector;
  /** Counts how requests end, for the server's health. Default: nobody does. */
  readonly calls?: CallCounter;
  /** Is given a line for each request, of level `debug`, where it is one of `createLogger`'s. Default: none. */
  readonly logger?: Logger;
}

/** The manager's whole story: route the request, lease the model, run it, and say how it went. */
export class AsyncManagedComputeFunction implements ComputeFunction {
  readonly #router: ModelRouter;
  readonly #modelManager: AsyncModelManager;
  readonly #observer: RequestObserver;

  constructor({ router, modelManager, metrics, calls, logger }: AsyncManagedComputeFunctionOptions) {
    this.#router = router;
    this.#modelManager = modelManager;
    this.#observer = new RequestObserver({
      metrics,
      isModel: (modelId) => modelManager.getModel(modelId) !== undefined,
      ...(calls && { calls }),
      ...(logger && isStructured(logger) && { logger }),
    });
  }

  async compute(request: ComputeRequest, context: CallContext): Promise<ComputeResponse> {
    const observed = this.#observer.begin(context);
    try {
      const modelId = observed.routed(this.#router.routeToModel(request, context));
      return observed.succeeded(await this.#router.track(modelId, () => this.#run(modelId, request, observed)));
    } catch (error) {
      throw observed.failed(error);
    }
  }

  /** A session stays with the model that its first request is for, and holds it until it ends. */
  async *stream(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse> {
    const iterator = requests[Symbol.asyncIterator]();
    const first = await iterator.next();
    if (first.done) return;
    const observed = this.#observer.begin(context);
    try {
      const modelId = observed.routed(this.#router.routeToModel(first.value, context));
      const all = startWith(first.value, { [Symbol.asyncIterator]: () => iterator });
      yield* this.#router.trackStream(modelId, this.#runSession(modelId, all, observed));
      observed.succeeded();
    } catch (error) {
      throw observed.failed(error);
    } finally {
      observed.left();
    }
  }

  info(): ServiceInfo {
    const models = [...this.#modelManager.listModels(), ...routesAsModels(this.#router, this.#modelManager)];
    return { name: '@splitlearn/manager', version: VERSION, models };
  }

  async #run(modelId: string, request: ComputeRequest, observed: ObservedRequest): Promise<ComputeResponse> {
    const lease = observed.leased(await this.#modelManager.acquire(modelId, observed.context));
    try {
      const { outputs, timing } = observed.answered(await lease.model.compute(request, observed.context));
      return timing ? { model: modelId, outputs, timing } : { model: modelId, outputs };
    } finally {
      lease.release();
    }
  }

  async *#runSession(
    modelId: string,
    requests: AsyncIterable<ComputeRequest>,
    observed: ObservedRequest,
  ): AsyncIterable<ComputeResponse> {
    await using lease = observed.leased(await this.#modelManager.acquire(modelId, observed.context));
    const { context } = observed;
    const responses = lease.model.stream?.(requests, context) ?? streamByCompute(lease.model, requests, context);
    for await (const response of responses) yield { ...observed.answered(response), model: modelId };
  }
}
