import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { ManagerError } from '../../src/errors.js';
import { type ModelConfig, parseModelConfig } from '../../src/models/model-config.js';
import type { Clock } from '../../src/sources/clock.js';
import { type HubRuntime, systemRuntime } from '../../src/sources/hub/runtime.js';
import type { LocatedModel } from '../../src/sources/local.js';
import { type LocateOptions, locateModel } from '../../src/sources/locate.js';
import { LocalHub, type LocalHubOptions } from './local-hub.js';

export const KIB = 1024;
export const MODEL = 'onnx/model.onnx';

/** What a repository of a text model looks like, with more in it than one model needs. */
export function repositoryFiles(modelBytes = 1024 * KIB): Record<string, Buffer> {
  return {
    '.gitattributes': Buffer.from('*.onnx filter=lfs'),
    'README.md': Buffer.from('# A model'),
    'config.json': Buffer.from('{"model_type":"gpt2"}'),
    'generation_config.json': Buffer.from('{}'),
    'tokenizer.json': randomBytes(30 * KIB),
    'tokenizer_config.json': Buffer.from('{"model_max_length":256}'),
    'merges.txt': Buffer.from('a b'),
    [MODEL]: randomBytes(modelBytes),
    'onnx/model_quantized.onnx': randomBytes(modelBytes / 4),
    'pytorch_model.bin': randomBytes(KIB),
  };
}

/** The files that the engine `transformers` needs of it. */
export const NEEDED = ['config.json', 'generation_config.json', MODEL, 'tokenizer.json', 'tokenizer_config.json'];

/** Waits for nothing: what would be tried again later is tried at once. Silence and heartbeats wait for the test. */
export class TestClock implements Clock {
  readonly waitsMs: number[] = [];
  readonly #silences = new Set<() => void>();

  now(): number {
    return performance.now();
  }

  after(milliseconds: number, callback: () => void): () => void {
    if (milliseconds === systemRuntime.idleMs) {
      this.#silences.add(callback);
      return () => void this.#silences.delete(callback);
    }
    if (milliseconds === 5_000) return () => {};
    this.waitsMs.push(milliseconds);
    const immediate = setImmediate(callback);
    return () => clearImmediate(immediate);
  }

  /** Lets the time without a byte run out, for all requests. */
  fallSilent(): void {
    for (const callback of [...this.#silences]) callback();
  }
}

interface Locate extends Omit<LocateOptions, 'environment'> {
  readonly environment?: NodeJS.ProcessEnv;
  readonly runtime?: Partial<HubRuntime>;
}

/** A machine with a home of its own that uses a hub of its own. */
export class LocalHubClient implements AsyncDisposable {
  readonly hub: LocalHub;
  readonly home = realpathSync(mkdtempSync(join(tmpdir(), 'hub-')));
  readonly clock = new TestClock();

  private constructor(hub: LocalHub) {
    this.hub = hub;
  }

  static async start(files = repositoryFiles(), options?: LocalHubOptions): Promise<LocalHubClient> {
    return new LocalHubClient(await LocalHub.start(files, options));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.hub.close();
    rmSync(this.home, { recursive: true });
  }

  /** The folder of the cache. */
  get cache(): string {
    return join(this.home, '.cache/huggingface/hub');
  }

  /** The folder of the repository `org/name` in the cache. */
  get repository(): string {
    return join(this.cache, 'models--org--name');
  }

  get environment(): NodeJS.ProcessEnv {
    return { HOME: this.home, HF_ENDPOINT: this.hub.url };
  }

  /** For a process of its own; whatever whoever runs the tests has set for the hub does not count. */
  get processEnvironment(): NodeJS.ProcessEnv {
    const others = Object.entries(process.env).filter(([name]) => !/^(HF_|HUGGING|XDG_)/.test(name));
    return { ...Object.fromEntries(others), ...this.environment };
  }

  locate(
    config: string | ModelConfig = 'org/name',
    { runtime, environment, ...options }: Locate = {},
  ): Promise<LocatedModel> {
    return locateModel(
      parseModelConfig(config),
      { ...options, environment: { ...this.environment, ...environment } },
      { ...systemRuntime, clock: this.clock, random: () => 0.5, rangeBytes: 64 * KIB, ...runtime },
    );
  }

  async failure(config?: string | ModelConfig, options?: Locate): Promise<ManagerError> {
    const error = await this.locate(config, options).then(
      () => expect.fail('nothing was thrown'),
      (reason) => reason,
    );
    expect(error).toBeInstanceOf(ManagerError);
    return error;
  }
}

/** The paths of all files below a folder. */
export function tree(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
    .sort();
}
