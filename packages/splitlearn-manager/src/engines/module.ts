import { pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import { assertTensor, CommError, type Model, type ModelCall, type Tensors } from '@splitlearn/comm/model';
import { ManagerError } from '../errors.js';
import type { Engine } from './engine.js';

/** What the `load` of a model's JavaScript file is given. */
export interface ModuleModelOptions {
  /** The name that requests use. */
  readonly modelId: string;
  /** Absolute path of the file's folder, where its weights and the like may lie. */
  readonly folder: string;
  /** How many threads one run may compute with. */
  readonly threads: number;
  /** What to compute on: `cpu`, `cuda:0` and the like. */
  readonly device: string;
}

/**
 * A model that a JavaScript file of the user's computes. `run` and `stream` are called one at a time, in a thread that
 * does nothing else; their `signal` is aborted when nobody waits for the answer any more. `dispose` is called when the
 * model is unloaded.
 */
export type ModuleModel = Model;

/** What a model's JavaScript file exports: `load`, or, where there is nothing to load, what `load` would return. */
export type ModelModule = { load(options: ModuleModelOptions): ModuleModel | Promise<ModuleModel> } | ModuleModel;

/**
 * Loads a model that a JavaScript file computes: an ES module that exports what {@link ModelModule} says, by name or as
 * properties of its default export (so that CommonJS works as well).
 *
 * What the file throws in a run reaches the caller where it is a `CommError` or a `ManagerError`. Any other error is
 * logged with its stack, and reaches the caller as `INTERNAL` without it.
 *
 * @throws ManagerError `MODEL_LOAD_FAILED` when the file cannot be imported, does not export what it must, or its `load`
 * throws. What is thrown there is the `cause`; a `CommError` or `ManagerError` is passed on as it is.
 */
export const loadModuleModel: Engine = async ({ modelId, folder, file, threads, device = 'cpu' }) => {
  const what = `model '${modelId}' (${file})`;
  const exported = await explain(`${what} cannot be imported`, () => import(pathToFileURL(file).href));
  const { load, run } = pick(exported);
  if (load !== undefined && typeof load !== 'function') throw failed(`${what} exports a 'load' that is no function`);
  if (load === undefined && typeof run !== 'function') {
    throw failed(
      `${what} exports ${names(exported)}, but neither a function 'load', which returns the model { run(inputs, call) }, ` +
        "nor a function 'run'",
    );
  }
  const options: ModuleModelOptions = { modelId, folder, threads, device };
  const model: unknown = load ? await explain(`${what} failed in its 'load'`, () => load(options)) : pick(exported);
  return checked(model, modelId, `the 'load' of ${what}`);
};

/** Those of a module's exports that matter, wherever they are. */
function pick(exported: Record<string, unknown>): Record<string, unknown> {
  const inner = exported.default;
  const within = typeof inner === 'object' && inner !== null ? (inner as Record<string, unknown>) : undefined;
  return within && exported.load === undefined && exported.run === undefined ? within : exported;
}

/** The model, whose results are looked at before they go on: the thread's own complaint about them would not say whose. */
function checked(value: unknown, modelId: string, from: string): Model {
  if (typeof value !== 'object' || value === null) {
    throw failed(`${from} returned ${brief(value)}, but must return the model, { run(inputs, call) }`);
  }
  const model = value as Model;
  if (typeof model.run !== 'function') throw failed(`${from} returned a model without a function 'run'`);
  for (const name of ['stream', 'dispose'] as const) {
    if (model[name] !== undefined && typeof model[name] !== 'function') {
      throw failed(`${from} returned a model whose '${name}' is no function`);
    }
  }
  return {
    ...(model.info && { info: model.info }),
    run: async (inputs, call) => tensorsOf(await model.run(inputs, call), modelId, 'run'),
    ...(model.stream && { stream: (inputs: Tensors, call: ModelCall) => pieces(model, modelId, inputs, call) }),
    dispose: () => model.dispose?.(),
  };
}

async function* pieces(model: Model, modelId: string, inputs: Tensors, call: ModelCall): AsyncGenerator<Tensors> {
  for await (const piece of model.stream?.(inputs, call) ?? []) yield tensorsOf(piece, modelId, 'stream');
}

function tensorsOf(value: unknown, modelId: string, method: string): Tensors {
  const wrong = (problem: string, cause?: unknown) =>
    new CommError('INTERNAL', `model '${modelId}' is at fault: its '${method}' gave ${problem}`, {
      reason: 'INVALID_RESULT',
      cause,
    });
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw wrong(`${brief(value)} in place of named tensors, such as { y: tensor([1, 2, 3]) }`);
  }
  const tensors = value as Tensors;
  for (const [name, tensor] of Object.entries(tensors)) {
    try {
      assertTensor(tensor, name);
    } catch (error) {
      throw wrong(`what is no tensor: ${(error as Error).message}`, error);
    }
  }
  return tensors;
}

async function explain<T>(what: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof CommError || (error instanceof Error && 'toCommError' in error)) throw error;
    const reason = error instanceof Error ? `${error.name}: ${error.message}` : brief(error);
    throw failed(`${what}: ${reason}`, error);
  }
}

function names(exported: Record<string, unknown>): string {
  const all = Object.keys(exported).slice(0, 12);
  return all.length === 0 ? 'nothing' : all.map((name) => `'${name}'`).join(', ');
}

function brief(value: unknown): string {
  return inspect(value, { depth: 0, maxStringLength: 80, maxArrayLength: 4, breakLength: Infinity });
}

function failed(message: string, cause?: unknown): ManagerError {
  return new ManagerError('MODEL_LOAD_FAILED', message, cause === undefined ? undefined : { cause });
}
