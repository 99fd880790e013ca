import type { JsonValue, ModelCall, Tensor, Tensors } from '@splitlearn/comm/model';
import type * as Library from '@xenova/transformers';
import { ManagerError } from '../../errors.js';
import type { Task, TaskInput } from './tasks.js';

/** What a pipeline is called with, once for each member of the outer array. */
export type PipelineCalls = readonly (readonly unknown[])[];

const KINDS: Readonly<Record<TaskInput, string>> = {
  text: "the string tensor 'text' of shape [] or [n]",
  question: "'question', a string tensor or a parameter",
  context: "'context', a string tensor or a parameter",
  candidate_labels: "'candidate_labels', a string tensor or a parameter",
  image:
    "the uint8 tensor 'image': pixels of shape [height, width, channels] or [n, height, width, channels], or the bytes of an image file, of shape [n]",
  audio: "the float32 tensor 'audio' of shape [samples] or [n, samples], and the parameter 'sampling_rate'",
};

/** What is known of a pipeline that is called. */
export interface PipelineFacts {
  readonly task: Task;
  /** Makes images. */
  readonly RawImage: typeof Library.RawImage;
  /** Samples a second that the model takes; absent where it does not take audio. */
  readonly samplingRate?: number | undefined;
}

/**
 * Makes the arguments of a pipeline of tensors and parameters. Texts go into one call, images and audio into one each.
 *
 * @throws ManagerError `INVALID_INPUT`, naming what the task takes.
 */
export async function pipelineCalls(facts: PipelineFacts, inputs: Tensors, call: ModelCall): Promise<PipelineCalls> {
  const { task } = facts;
  assertNames(task, inputs, call.parameters);
  const { sampling_rate: rate, ...parameters } = call.parameters;
  const options = Object.fromEntries(Object.entries(parameters).filter(([name]) => task.parameters.includes(name)));
  const [first, ...others] = task.inputs as [TaskInput, ...TaskInput[]];
  const rest = others.map((name) => strings(task, name, inputs, parameters));
  if (first === 'image') {
    const images = await imagesOf(facts, inputs.image);
    // A question is asked of one document; labels are for every image alike.
    return images.map((image) => [
      image,
      ...rest.map((values, index) => (others[index] === 'question' ? values[0] : values)),
      options,
    ]);
  }
  if (first === 'audio') return audiosOf(facts, inputs.audio, rate).map((audio) => [audio, ...rest, options]);
  const texts = strings(task, first, inputs, parameters);
  const [context] = rest;
  if (others[0] === 'context' && context?.length !== texts.length) {
    throw invalid(task, `There are ${texts.length} questions, but ${context?.length} contexts.`);
  }
  if (task.output === 'audio' && texts.length !== 1) throw invalid(task, 'It speaks one text at a time.');
  return [[task.output === 'audio' ? texts[0] : texts, ...rest, options]];
}

function assertNames(task: Task, inputs: Tensors, parameters: ModelCall['parameters']): void {
  const unknown = Object.keys(inputs).find((name) => !task.inputs.includes(name as TaskInput));
  if (unknown !== undefined) throw invalid(task, `There is no input '${unknown}'.`);
  const known: readonly string[] = [
    ...task.parameters,
    ...task.inputs.filter((name) => name !== 'text' && name !== 'image' && name !== 'audio'),
    ...(task.inputs.includes('audio') ? ['sampling_rate'] : []),
  ];
  const other = Object.keys(parameters).find((name) => !known.includes(name));
  if (other !== undefined) {
    throw invalid(task, `There is no parameter '${other}'; the parameters are: ${known.join(', ') || 'none'}.`);
  }
}

function strings(
  task: Task,
  name: TaskInput,
  inputs: Tensors,
  parameters: Record<string, JsonValue>,
): readonly string[] {
  const tensor = inputs[name];
  const given: unknown = tensor ? tensor.data : name === 'text' ? undefined : [parameters[name] ?? []].flat();
  const fits = Array.isArray(given) && given.length > 0 && given.every((value) => typeof value === 'string');
  if (!fits || (tensor?.shape.length ?? 0) > 1)
    throw invalid(task, `The input '${name}' is missing or is something else.`);
  return given;
}

async function imagesOf({ task, RawImage }: PipelineFacts, tensor: Tensor | undefined) {
  if (tensor?.dtype !== 'uint8') throw invalid(task, `The input 'image' is missing or is something else.`);
  const { data, shape } = tensor;
  if (shape.length === 1) {
    const file = new Blob([Uint8Array.from(data)]);
    return [
      await RawImage.fromBlob(file).catch((cause: unknown) => {
        throw invalid(task, `The bytes of 'image' are no image file that can be read: ${String(cause)}.`);
      }),
    ];
  }
  const [count, height, width, channels] = shape.length === 3 ? [1, ...shape] : shape;
  if (shape.length > 4 || !count || !height || !width || !channels || channels > 4) {
    throw invalid(task, `The input 'image' has the shape [${shape.join(', ')}].`);
  }
  const size = height * width * channels;
  return Array.from({ length: count }, (_, index) => {
    const pixels = data.slice(index * size, (index + 1) * size);
    return new RawImage(pixels, width, height, channels as 1 | 2 | 3 | 4);
  });
}

function audiosOf({ task, samplingRate }: PipelineFacts, tensor: Tensor | undefined, rate: JsonValue | undefined) {
  if (tensor?.dtype !== 'float32' || tensor.shape.length < 1 || tensor.shape.length > 2 || tensor.data.length === 0) {
    throw invalid(task, `The input 'audio' is missing or is something else.`);
  }
  if (rate !== undefined && samplingRate !== undefined && rate !== samplingRate) {
    throw invalid(
      task,
      `The audio has ${String(rate)} samples a second, but the model takes ${samplingRate}: resample it.`,
    );
  }
  const { data, shape } = tensor;
  const samples = shape.at(-1) as number;
  return Array.from({ length: data.length / samples }, (_, index) =>
    data.slice(index * samples, (index + 1) * samples),
  );
}

function invalid(task: Task, problem: string): ManagerError {
  const wanted = task.inputs.map((name) => KINDS[name]).join('; ');
  return new ManagerError('INVALID_INPUT', `${problem} This model takes ${wanted}.`);
}
