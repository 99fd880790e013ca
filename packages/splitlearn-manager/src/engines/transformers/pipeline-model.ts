import { type Model, type ModelCall, markMovable, type Tensors, tensor } from '@splitlearn/comm/model';
import type * as Library from '@xenova/transformers';
import { ManagerError } from '../../errors.js';
import { runError } from '../onnx-errors.js';
import { type PipelineFacts, pipelineCalls } from './pipeline-inputs.js';
import { OUTPUTS, pipelineOutputs } from './pipeline-outputs.js';
import type { Task } from './tasks.js';

/** A pipeline of transformers.js. */
export interface Pipeline {
  (...args: unknown[]): Promise<unknown>;
  dispose(): Promise<unknown>;
  readonly processor?: { readonly feature_extractor?: { readonly config?: { readonly sampling_rate?: number } } };
}

/** What a {@link PipelineModel} is made of. */
export interface PipelineModelOptions {
  readonly modelId: string;
  readonly taskName: string;
  readonly task: Task;
  readonly architecture: string;
  readonly pipeline: Pipeline;
  readonly library: Pick<typeof Library, 'RawImage' | 'InterruptableStoppingCriteria'>;
}

/** A model that does a task of transformers.js: tensors in, its pipeline's results as tensors out. */
export class PipelineModel implements Model {
  readonly info: NonNullable<Model['info']>;
  readonly #options: PipelineModelOptions;
  readonly #facts: PipelineFacts;

  constructor(options: PipelineModelOptions) {
    this.#options = options;
    const { task, taskName, architecture, pipeline, library } = options;
    const samplingRate = pipeline.processor?.feature_extractor?.config?.sampling_rate;
    this.#facts = { task, RawImage: library.RawImage, samplingRate };
    this.info = {
      inputs: task.inputs.map((name) => {
        if (name === 'image') return { name, dtype: 'uint8', shape: ['height', 'width', 'channels'] };
        if (name === 'audio') return { name, dtype: 'float32', shape: ['samples'] };
        return { name, dtype: 'string', shape: [name === 'candidate_labels' ? 'labels' : 'n'] };
      }),
      outputs: OUTPUTS[task.output],
      attributes: {
        task: taskName,
        architecture,
        parameters: task.parameters.join(', '),
        ...(samplingRate !== undefined && { samplingRate: String(samplingRate) }),
      },
    };
  }

  /**
   * Does the task once for everything that is given.
   *
   * @throws ManagerError `INVALID_INPUT` for inputs and parameters that the task does not have, `INSUFFICIENT_MEMORY` when
   * memory ran out, `INFERENCE_FAILED` when the pipeline fails; the signal's `reason` when it is aborted: before the next
   * input, or within one token where the task generates text.
   */
  async run(inputs: Tensors, call: ModelCall): Promise<Tensors> {
    const { modelId, task, pipeline, library } = this.#options;
    const { signal } = call;
    signal.throwIfAborted();
    const calls = await pipelineCalls(this.#facts, inputs, call);
    const stop = new library.InterruptableStoppingCriteria();
    const interrupt = () => stop.interrupt();
    signal.addEventListener('abort', interrupt);
    try {
      const results: unknown[] = [];
      for (const args of calls) {
        signal.throwIfAborted();
        const options = { ...(args.at(-1) as object), ...(task.generates && { stopping_criteria: stop }) };
        results.push(await pipeline(...args.slice(0, -1), options));
      }
      signal.throwIfAborted();
      return markMovable(pipelineOutputs(task.output, Array.isArray(calls[0]?.[0]), results));
    } catch (error) {
      throw error instanceof ManagerError || signal.aborted
        ? signal.aborted
          ? signal.reason
          : error
        : runError(modelId, inputs, error);
    } finally {
      signal.removeEventListener('abort', interrupt);
    }
  }

  /** Does the task on a short text; a task that takes something else is not tried. What fails is no fault. */
  async warmUp(): Promise<void> {
    const { task } = this.#options;
    if (task.inputs.join() !== 'text') return;
    const parameters = task.generates ? { max_new_tokens: 1 } : {};
    const call = { parameters, outputs: [], signal: new AbortController().signal, requestId: 'warm-up' };
    await this.run({ text: tensor('a') }, call).catch(() => {});
  }

  /** Releases the ONNX sessions. */
  async dispose(): Promise<void> {
    await this.#options.pipeline.dispose();
  }
}
