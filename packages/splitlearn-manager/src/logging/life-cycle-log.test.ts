import { EventEmitter } from 'node:events';
import { beforeEach, describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import type { EvictionRecord } from '../models/admission.js';
import type { AsyncModelManager } from '../models/async-model-manager.js';
import type { ManagerEvents } from '../models/manager-events.js';
import { LifeCycleLog } from './life-cycle-log.js';
import { createLogger, type LogLevel } from './logger.js';

type Followed = Pick<AsyncModelManager, 'on' | 'off' | 'getModel'>;

let manager: EventEmitter<ManagerEvents>;
let lines: Record<string, unknown>[];

function follow(level: LogLevel = 'info') {
  lines = [];
  const log = new LifeCycleLog(createLogger({ level, destination: { write: (line) => lines.push(JSON.parse(line)) } }));
  const unfollow = log.follow(manager as unknown as Followed);
  return { log, unfollow };
}

beforeEach(() => {
  const info = { engine: 'onnx', isolation: 'process', threads: 2, pid: 7, loadMs: 12.7 };
  manager = Object.assign(new EventEmitter<ManagerEvents>(), { getModel: () => info });
});

const lastLine = () => lines.at(-1) ?? expect.fail('nothing was logged');

describe("a model's life", () => {
  const crash = new ManagerError('MODEL_CRASHED', "the process of model 'a' was ended by SIGSEGV");

  it.each<[ManagerEvents['state'][0], string, Record<string, unknown>]>([
    [{ modelId: 'a', state: 'LOADING' }, "model 'a' is being loaded", { level: 'info', event: 'model-loading' }],
    [
      { modelId: 'a', state: 'READY' },
      "model 'a' is ready",
      {
        level: 'info',
        event: 'model-ready',
        engine: 'onnx',
        isolation: 'process',
        threads: 2,
        modelPid: 7,
        loadMs: 13,
      },
    ],
    [
      { modelId: 'a', state: 'LOADING', error: crash },
      "model 'a' is started again, because it has crashed",
      { level: 'info', event: 'model-restarting', code: 'MODEL_CRASHED' },
    ],
    [{ modelId: 'a', state: 'UNLOADED' }, "model 'a' has been unloaded", { level: 'info', event: 'model-unloaded' }],
    [
      { modelId: 'a', state: 'FAILED', error: new ManagerError('MODEL_LOAD_FAILED', 'it wrote: bad magic') },
      "model 'a' has failed: it wrote: bad magic",
      { level: 'error', event: 'model-failed', code: 'MODEL_LOAD_FAILED' },
    ],
  ])('has one line for %j', (event, message, fields) => {
    follow();
    manager.emit('state', event);
    expect(lines).toHaveLength(1);
    expect(lastLine()).toMatchObject({ model: 'a', msg: message, ...fields });
  });

  it('has a line when it takes no new requests, for those who want to know all', () => {
    follow();
    manager.emit('state', { modelId: 'a', state: 'DRAINING' });
    expect(lines).toEqual([]);
    follow('debug');
    manager.emit('state', { modelId: 'a', state: 'DRAINING' });
    expect(lastLine()).toMatchObject({ level: 'debug', event: 'model-draining' });
  });

  it('has a line when it is evicted: why, for whom, and what that gave', () => {
    follow();
    const record: EvictionRecord = { modelId: 'a', reason: 'memory', idleMs: 5, reclaimedBytes: 9, atMs: 0 };
    manager.emit('eviction', { ...record, forModelId: 'b' });
    expect(lastLine()).toMatchObject({
      ...{ level: 'info', event: 'model-evicted', model: 'a', reason: 'memory', forModel: 'b', reclaimedBytes: 9 },
      msg: "model 'a' was evicted: memory, for model 'b'",
    });
    manager.emit('eviction', { ...record, reason: 'idle' });
    expect(lastLine().msg).toBe("model 'a' was evicted: idle");
  });

  it('has a line when its download begins, and one when it is over, however often it is told', () => {
    follow();
    const download = { repository: 'org/x', commit: 'f00', file: 'f', fileBytes: 0, fileTotalBytes: 1, bytes: 0 };
    const tell = (filesDone: number) => manager.emit('download', { ...download, totalBytes: 9, files: 2, filesDone });
    for (const filesDone of [0, 0, 1, 1, 2, 2]) tell(filesDone);
    expect(lines.map(({ event }) => event)).toEqual(['downloading', 'downloaded']);
    expect(lastLine()).toMatchObject({ repository: 'org/x', commit: 'f00', files: 2, totalBytes: 9 });
  });

  it('is followed until that is ended', () => {
    const { unfollow } = follow();
    unfollow();
    manager.emit('state', { modelId: 'a', state: 'READY' });
    expect(lines).toEqual([]);
    expect(manager.eventNames()).toEqual([]);
  });
});

describe("a server's life", () => {
  it('has a line for its beginning, its drain and its end', () => {
    const { log } = follow();
    log.listening('127.0.0.1', 50051);
    log.draining(3_000);
    log.stopped();
    expect(lines).toMatchObject([
      { level: 'info', event: 'listening', host: '127.0.0.1', port: 50051 },
      { level: 'info', event: 'draining', graceMs: 3_000 },
      { level: 'info', event: 'stopped' },
    ]);
  });
});

describe('a logger that takes no fields', () => {
  it('is told nothing of all this', () => {
    const told: string[] = [];
    const tell = (message: string) => told.push(message);
    const log = new LifeCycleLog({ warn: tell, error: tell });
    log.follow(manager as unknown as Followed)();
    log.follow(manager as unknown as Followed);
    manager.emit('state', { modelId: 'a', state: 'FAILED' });
    log.listening('127.0.0.1', 1);
    expect(told).toEqual([]);
    expect(manager.eventNames()).toEqual([]);
  });
});
