import { describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import { type CheckedModel, HealthChecker } from './health-checker.js';
import type { HealthLimits } from './health-limits.js';
import type { CallCounts } from './sustained.js';

const ready: CheckedModel = { modelId: 'gpt2', state: 'READY', pinned: false };
const crashed: CheckedModel = {
  modelId: 'bert',
  state: 'FAILED',
  pinned: false,
  failure: 'it crashed again and again',
};

/** A server's health by a clock that only the test moves. */
class Watched {
  nowMs = 1_000;
  models: readonly CheckedModel[] = [ready];
  delayMs = 0;
  maxDelayMs = 0;
  readonly checker: HealthChecker;
  #calls: CallCounts = { finished: 5, refused: 4, failed: 4 };
  #callsOfModel: CallCounts = { finished: 70, refused: 0, failed: 70 };

  constructor(limits: HealthLimits = {}) {
    this.checker = new HealthChecker(
      {
        models: () => this.models,
        calls: () => this.#calls,
        callsOfModel: (modelId) => (modelId === 'gpt2' ? this.#callsOfModel : undefined),
        limits,
      },
      { now: () => this.nowMs },
    );
    this.checker.enter('serving');
    this.checker.sample({ p99Ms: 0, maxMs: 0 });
  }

  /** Seconds that pass, with so many requests in each. */
  pass(seconds: number, { finished = 0, refused = 0, failed = 0 } = {}): this {
    for (let second = 0; second < seconds; second++) {
      this.nowMs += 1_000;
      this.#calls = add(this.#calls, { finished, refused, failed: 0 });
      this.#callsOfModel = add(this.#callsOfModel, { finished, refused: 0, failed });
      this.checker.sample({ p99Ms: this.delayMs, maxMs: this.maxDelayMs || this.delayMs });
    }
    return this;
  }

  get ready(): boolean {
    return this.checker.check().ready;
  }

  get reasons(): string {
    return this.checker.check().reasons.join('\n');
  }
}

function add(one: CallCounts, other: CallCounts): CallCounts {
  return {
    finished: one.finished + other.finished,
    refused: one.refused + other.refused,
    failed: one.failed + other.failed,
  };
}

const busy = { finished: 100 };
const overloaded = { finished: 100, refused: 60 };

describe('a server that serves', () => {
  it('is live and ready, and has nothing to say', () => {
    expect(new Watched().pass(60, busy).checker.check()).toEqual({
      live: true,
      ready: true,
      reasons: [],
      models: { gpt2: { serving: true, state: 'READY' } },
    });
  });

  it('is ready without any model, as one can be given to it', () => {
    const watched = new Watched();
    watched.models = [];
    expect(watched.checker.check()).toEqual({ live: true, ready: true, reasons: [], models: {} });
  });

  it('takes the name of a model as it is', () => {
    const watched = new Watched();
    watched.models = [{ ...ready, modelId: '__proto__' }];
    expect(Object.keys(watched.checker.check().models)).toEqual(['__proto__']);
  });
});

describe('the life of the server', () => {
  it.each([
    { lifecycle: 'starting', reason: 'starting' },
    { lifecycle: 'draining', reason: 'draining' },
    { lifecycle: 'stopped', reason: 'stopped' },
  ] as const)('makes it and its models not ready while it is $lifecycle, and live all the same', (expected) => {
    const watched = new Watched();
    watched.checker.enter(expected.lifecycle);
    const { live, ready, reasons, models } = watched.checker.check();
    expect({ live, ready }).toEqual({ live: true, ready: false });
    expect(reasons).toEqual([expect.stringContaining(expected.reason)]);
    expect(models.gpt2).toEqual({ serving: false, state: 'READY', reason: reasons[0] });
  });

  it('begins with its start', () => {
    expect(new HealthChecker({ models: () => [] }).check()).toMatchObject({ live: true, ready: false });
  });
});

describe('a model', () => {
  it.each([
    { model: { ...ready, state: 'LOADING' }, reason: 'being loaded' },
    { model: { ...ready, state: 'LOADING', failure: 'it ended by SIGKILL' }, reason: 'again: it ended by SIGKILL' },
    { model: { ...ready, state: 'DRAINING' }, reason: 'being unloaded' },
    { model: { ...ready, state: 'UNLOADED' }, reason: 'next request for it loads it' },
    { model: crashed, reason: 'it crashed again and again' },
  ] as const)('is not serving while it is $model.state, and says why', ({ model, reason }) => {
    const watched = new Watched();
    watched.models = [model, { ...ready, modelId: 'other' }];
    const report = watched.checker.check();
    expect(report.models[model.modelId]).toEqual({
      serving: false,
      state: model.state,
      reason: expect.stringContaining(reason),
    });
    expect(report.models.other?.serving).toBe(true);
    expect(report.ready).toBe(true);
  });

  it('that is READY but fails most of its requests is not serving, until they succeed again for a while', () => {
    const watched = new Watched().pass(9, { finished: 20, failed: 11 });
    expect(watched.checker.check().models.gpt2?.serving).toBe(true);
    watched.pass(1, { finished: 20, failed: 11 });
    expect(watched.checker.check()).toMatchObject({
      ready: true,
      models: { gpt2: { serving: false, reason: expect.stringContaining('55 %') } },
    });
    watched.pass(9, busy);
    expect(watched.checker.check().models.gpt2?.serving).toBe(false);
    watched.pass(1, busy);
    expect(watched.checker.check().models.gpt2).toEqual({ serving: true, state: 'READY' });
  });

  it('that comes back after it was forgotten begins anew', () => {
    const watched = new Watched().pass(10, { finished: 20, failed: 20 });
    watched.models = [];
    watched.pass(1);
    watched.models = [ready];
    watched.pass(1);
    expect(watched.checker.check().models.gpt2?.serving).toBe(true);
  });

  it('that has had few requests is not judged by them, until there have been enough', () => {
    const watched = new Watched().pass(9, { finished: 2, failed: 2 });
    expect(watched.checker.check().models.gpt2?.serving).toBe(true);
    watched.pass(1, { finished: 2, failed: 2 });
    expect(watched.checker.check().models.gpt2?.serving).toBe(false);
  });
});

describe('a crash loop', () => {
  it('of the only model makes the server not ready, with the reason of the model', () => {
    const watched = new Watched();
    watched.models = [crashed];
    expect(watched.reasons).toBe("the only model, 'bert', is FAILED: it crashed again and again");
  });

  it('of one among several leaves it ready', () => {
    const watched = new Watched();
    watched.models = [ready, crashed];
    expect(watched.ready).toBe(true);
  });

  it('of all models makes it not ready, and all are named', () => {
    const watched = new Watched();
    watched.models = [crashed, { ...crashed, modelId: 'vit' }];
    expect(watched.reasons).toMatch(/all 2 models are FAILED; 'bert'.*\n.*'vit'/);
  });

  it('of a pinned model makes it not ready, whatever the others do', () => {
    const watched = new Watched();
    watched.models = [ready, { ...crashed, pinned: true }, { ...crashed, modelId: 'vit' }];
    expect(watched.checker.check().reasons).toEqual([
      "the model 'bert' is pinned, and FAILED: it crashed again and again",
    ]);
  });

  it('is over as soon as the model is loaded again', () => {
    const watched = new Watched();
    watched.models = [crashed];
    expect(watched.ready).toBe(false);
    watched.models = [{ ...crashed, state: 'LOADING' }];
    expect(watched.ready).toBe(true);
  });

  it('of five minutes lets a request try the model again, and the next failure counts anew', () => {
    const watched = new Watched();
    watched.models = [crashed];
    watched.pass(299);
    expect(watched.ready).toBe(false);
    watched.pass(2);
    expect(watched.ready).toBe(true);
    expect(watched.checker.check().models.bert?.serving).toBe(false);
    watched.models = [{ ...crashed, state: 'LOADING' }];
    watched.checker.check();
    watched.models = [crashed];
    expect(watched.ready).toBe(false);
  });
});

describe('overload by refusals', () => {
  it('has to last before the server is not ready, and says how much is refused and what to do', () => {
    const watched = new Watched().pass(9, overloaded);
    expect(watched.ready).toBe(true);
    watched.pass(1, overloaded);
    expect(watched.checker.check()).toMatchObject({ live: true, ready: false });
    expect(watched.reasons).toMatch(
      /overload for 10 s: 60 % .*RESOURCE_EXHAUSTED.*add instances.*less than 25 % for 10 s/,
    );
  });

  it('that stops for a moment begins anew', () => {
    const watched = new Watched().pass(9, overloaded).pass(1, busy).pass(9, overloaded);
    expect(watched.ready).toBe(true);
    expect(watched.pass(1, overloaded).ready).toBe(false);
  });

  it('is over when less than half of the limit is refused for a while, and not before', () => {
    const watched = new Watched().pass(10, overloaded).pass(60, { finished: 100, refused: 30 });
    expect(watched.ready).toBe(false);
    watched.pass(9, { finished: 100, refused: 20 }).pass(1, { finished: 100, refused: 30 });
    expect(watched.pass(9, { finished: 100, refused: 20 }).ready).toBe(false);
    expect(watched.pass(1, { finished: 100, refused: 20 }).ready).toBe(true);
  });

  it('is over when nobody asks any more, as whoever heeds readiness sends nothing', () => {
    const watched = new Watched().pass(10, overloaded).pass(9);
    expect(watched.ready).toBe(false);
    expect(watched.pass(11).ready).toBe(true);
  });

  it('is none where there are hardly any requests', () => {
    const watched = new Watched();
    for (let second = 0; second < 200; second++) {
      watched.pass(1, second % 20 === 0 ? { finished: 9, refused: 9 } : {});
      expect(watched.ready).toBe(true);
    }
  });

  it('is none of what was counted before', () => {
    expect(new Watched().pass(10).ready).toBe(true);
  });

  it('can be left out of readiness', () => {
    expect(new Watched({ refusedShare: 1 }).pass(60, { finished: 100, refused: 100 }).ready).toBe(true);
  });

  it('has limits of its own', () => {
    const limits = { refusedShare: 0.1, afterMs: 2_000, recoverAfterMs: 1_000, minCalls: 1 };
    const watched = new Watched(limits).pass(1, { finished: 5, refused: 1 });
    expect(watched.ready).toBe(true);
    expect(watched.pass(1, { finished: 5, refused: 1 }).ready).toBe(false);
    expect(watched.pass(1, { finished: 50, refused: 1 }).ready).toBe(true);
  });
});

describe('the event loop', () => {
  it('that is late for a while makes the server not ready, until it has been in time for a while', () => {
    const watched = new Watched();
    watched.delayMs = 501;
    expect(watched.pass(9).ready).toBe(true);
    expect(watched.pass(1).ready).toBe(false);
    expect(watched.reasons).toMatch(
      /overload for 10 s: the event loop is 501 ms late \(p99\).*less than 250 ms for 10 s/,
    );
    expect(watched.checker.check().live).toBe(true);
    watched.delayMs = 260;
    expect(watched.pass(30).ready).toBe(false);
    watched.delayMs = 0;
    expect(watched.pass(9).ready).toBe(false);
    expect(watched.pass(1).ready).toBe(true);
  });

  it('that does not come round any more makes the process not live', () => {
    const watched = new Watched();
    watched.nowMs += 30_000;
    expect(watched.checker.check().live).toBe(true);
    watched.nowMs += 1_000;
    expect(watched.checker.check()).toMatchObject({ live: false, ready: false });
    expect(watched.reasons).toMatch(/stood still for 31 s.*no more than 30 s.*restart the process/);
  });

  it('that stood still is remembered for a while, and then it is live again', () => {
    const watched = new Watched();
    watched.maxDelayMs = 30_001;
    watched.pass(1);
    watched.maxDelayMs = 0;
    expect(watched.checker.check().live).toBe(false);
    expect(watched.pass(9).checker.check().live).toBe(false);
    expect(watched.pass(1).checker.check().live).toBe(true);
  });

  it('stood still as well where a sample comes that late', () => {
    const watched = new Watched();
    watched.nowMs += 40_000;
    watched.checker.sample({ p99Ms: 0, maxMs: 0 });
    expect(watched.reasons).toContain('stood still for 40 s');
  });

  it('says nothing of liveness before the first sample, or when the server has stopped', () => {
    let nowMs = 0;
    const checker = new HealthChecker({ models: () => [] }, { now: () => nowMs });
    nowMs = 120_000;
    expect(checker.check().live).toBe(true);
    checker.sample({ p99Ms: 0, maxMs: 0 });
    checker.enter('stopped');
    nowMs += 120_000;
    expect(checker.check().live).toBe(true);
  });
});

describe('the limits of health', () => {
  it.each([
    { refusedShare: 0 },
    { failedShare: 1.1 },
    { minCalls: 0 },
    { eventLoopDelayMs: 0 },
    { afterMs: 0 },
    { stuckMs: 1 },
  ])('are refused with the name of the field: %j', (limits) => {
    const make = () => new HealthChecker({ models: () => [], limits });
    expect(make).toThrow(ManagerError);
    expect(make).toThrow(Object.keys(limits)[0]);
  });
});
