import type {
  CallContext,
  ComputeFunction,
  ComputeRequest,
  ComputeResponse,
  ServiceInfo,
} from '../compute-function.js';
import { CommError } from '../errors.js';
import { SerialExecutor } from '../executors/serial-executor.js';
import type { Executed, Executor, Model, ModelCall } from '../model.js';
import { selectOutputs } from '../select-outputs.js';

/** A model, and what runs it. */
export type AsyncModelComputeFunctionOptions =
  | {
      readonly model: Model;
      /** Default: a `SerialExecutor`, one call at a time in this thread. */
      readonly executor?: Executor<Model>;
    }
  | {
      /** URL or path of a module whose default export is the model, or makes it. */
      readonly model: string | URL;
      readonly executor: Executor<string | URL>;
    };

/** One model behind an executor. The name it answers to in `GetServiceInfo` is `default`. */
export class AsyncModelComputeFunction implements ComputeFunction {
  readonly #executor: Pick<Executor<unknown>, 'run' | 'stream' | 'stop'>;
  readonly #start: () => Promise<Model['info']>;
  #info: Model['info'];

  constructor(options: AsyncModelComputeFunctionOptions) {
    if (isModule(options)) {
      const { model, executor } = options;
      if (!executor)
        throw invalid(`model is a module (${model}): it needs an executor, as in new WorkerExecutor({ threads: 1 })`);
      this.#start = () => executor.start(model);
      this.#executor = executor;
    } else {
      const { model, executor = new SerialExecutor() } = options;
      if (typeof model?.run !== 'function')
        throw invalid('model must be { run(inputs) { … } }, or the URL or path of a module');
      this.#start = () => executor.start(model);
      this.#executor = executor;
    }
  }

  async setup(): Promise<void> {
    this.#info = await this.#start();
  }

  async compute(request: ComputeRequest, context: CallContext): Promise<ComputeResponse> {
    return toResponse(await this.#executor.run(request.inputs, toModelCall(request, context)));
  }

  async *stream(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse> {
    for await (const request of requests) {
      const pieces = this.#executor.stream(request.inputs, toModelCall(request, context));
      for await (const piece of pieces) yield selectOutputs(toResponse(piece), request, 'present');
    }
  }

  info(): ServiceInfo {
    return { name: '', version: '', models: [{ name: 'default', state: 'READY', ...this.#info }] };
  }

  async teardown(): Promise<void> {
    await this.#executor.stop();
  }
}

type ModuleOptions = Extract<AsyncModelComputeFunctionOptions, { model: string | URL }>;

function isModule(options: AsyncModelComputeFunctionOptions): options is ModuleOptions {
  return typeof options.model === 'string' || options.model instanceof URL;
}

function invalid(message: string): CommError {
  return new CommError('INVALID_ARGUMENT', message);
}

function toModelCall({ parameters = {}, outputs = [] }: ComputeRequest, { signal, requestId }: CallContext): ModelCall {
  return { parameters, outputs, signal, requestId };
}

function toResponse({ outputs, queueMs, computeMs }: Executed): ComputeResponse {
  return { outputs, timing: { queueMs, computeMs } };
}
