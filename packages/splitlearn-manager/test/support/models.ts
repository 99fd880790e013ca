// What the unit tests of src/models share.
import type { ComputeFunction } from '@splitlearn/comm';
import { expect, vi } from 'vitest';
import { ManagerError, type ManagerErrorCode } from '../../src/errors.js';
import type { ModelHost } from '../../src/hosts/model-host.js';
import { ManagedModel } from '../../src/models/managed-model.js';
import { type ModelConfig, parseModelConfig } from '../../src/models/model-config.js';
import { RegisteredModel } from '../../src/models/registered-model.js';

export const MIB = 2 ** 20;

/** A host without a process. */
export class FakeHost implements ModelHost {
  readonly info: ModelHost['info'];
  readonly pid = 7;
  readonly computeFn: ComputeFunction = { compute: async () => ({ outputs: {} }) };
  readonly died: Promise<ManagerError>;
  crash!: (message?: string, code?: ManagerErrorCode) => void;
  dead = false;
  stops = 0;
  readonly #bytes: number;

  constructor(name: string, bytes: number) {
    this.info = { attributes: { name } };
    this.#bytes = bytes;
    this.died = new Promise((resolve) => {
      this.crash = (message = `the process of '${name}' ended`, code = 'MODEL_CRASHED') => {
        this.dead = true;
        resolve(new ManagerError(code, message));
      };
    });
  }

  get alive(): boolean {
    return !this.dead && this.stops === 0;
  }

  async memoryBytes(): Promise<number> {
    return this.alive ? this.#bytes : 0;
  }

  async stop(): Promise<void> {
    this.stops++;
  }
}

/** One start of a host, which a test makes succeed or fail. */
export interface FakeStart {
  readonly signal: AbortSignal;
  readonly host: FakeHost;
  settled: boolean;
  succeed(): void;
  fail(error: Error): void;
}

/** Starts of hosts that come to their end when a test says so; where they heed it, when their signal is aborted as well. */
export class FakeStarts {
  readonly all: FakeStart[] = [];
  heedsSignal = false;
  readonly #bytes: number;

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  begin(signal: AbortSignal): Promise<ModelHost> {
    return new Promise<ModelHost>((resolve, reject) => {
      const host = new FakeHost(String(this.all.length), this.#bytes);
      const settle = (outcome: () => void) => {
        start.settled = true;
        outcome();
      };
      const start: FakeStart = {
        ...{ signal, host, settled: false },
        succeed: () => settle(() => resolve(host)),
        fail: (error) => settle(() => reject(error)),
      };
      if (this.heedsSignal) signal.addEventListener('abort', () => start.fail(signal.reason));
      this.all.push(start);
    });
  }

  nth(index: number): FakeStart {
    return this.all[index] ?? expect.fail(`there was no start ${index}`);
  }
}

/** A model that is known and not loaded. */
export function knownModel(
  modelId: string,
  config: Partial<ModelConfig> = {},
  bringUp: (evict: boolean, signal: AbortSignal) => Promise<void> = async () => {},
): RegisteredModel {
  const located = { modelId, engine: 'onnx', folder: '/', file: '/m.onnx', fileBytes: 1 } as const;
  return new RegisteredModel({
    order: 0,
    config: parseModelConfig({ source: modelId, isolation: 'thread', ...config }),
    located,
    bringUp,
  });
}

/** Begins a life of a model that takes so much. */
export async function bringToLife(model: RegisteredModel, bytes: number): Promise<ManagedModel> {
  const { modelId } = model;
  const life = new ManagedModel({
    ...{ modelId, reservationId: modelId, instances: 1, threads: 1, memoryBytes: bytes },
    startHost: async () => new FakeHost(modelId, bytes),
    onCrash: () => {},
    onState: () => {},
    onIdle: () => {},
  });
  model.life = life;
  model.starting = life.load();
  await model.starting;
  model.starting = undefined;
  return life;
}

/** Lets everything that is due happen. */
export function settle(): Promise<unknown> {
  return vi.advanceTimersByTimeAsync(0);
}

export async function failure(work: Promise<unknown>): Promise<ManagerError> {
  const error = await work.then(
    () => expect.fail('nothing was thrown'),
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(ManagerError);
  return error;
}
