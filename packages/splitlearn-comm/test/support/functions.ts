import type { ComputeFunction, ComputeRequest, Logger, Tensor, Tensors } from '@splitlearn/comm';

/** Answers with what it is asked. */
export const echo: ComputeFunction = {
  async compute({ inputs }) {
    return { outputs: inputs };
  },
};

/** A compute function that has only a stream. */
export function streaming(stream: NonNullable<ComputeFunction['stream']>): ComputeFunction {
  return { ...echo, stream };
}

/** A logger that keeps what it is told. */
export class RecordingLogger implements Logger {
  readonly lines: string[] = [];

  warn(message: string): void {
    this.lines.push(message);
  }

  error(message: string): void {
    this.lines.push(message);
  }
}

/** The first number of a tensor, by its name. */
export function valueAt(tensors: Tensors, name: string): number {
  return Number((tensors[name] as Tensor<'float32'>).data[0]);
}

/** Requests from a list, one by one. */
export async function* requestsOf(...inputs: readonly Tensors[]): AsyncGenerator<ComputeRequest, void> {
  for (const tensors of inputs) yield { inputs: tensors };
}

/** One request, and then nothing for ever. */
export async function* requestThenSilence(inputs: Tensors): AsyncGenerator<ComputeRequest, void> {
  yield { inputs };
  await new Promise(() => {});
}
