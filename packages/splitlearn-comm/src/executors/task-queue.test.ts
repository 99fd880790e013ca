import { getEventListeners } from 'node:events';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { rejection } from '../../test/support/deferred.js';
import { CommError } from '../errors.js';
import { TaskQueue, type Turn } from './task-queue.js';

const never = new AbortController().signal;

/** A clock that stands still until it is told. */
function clock() {
  let time = 1_000;
  return { now: () => time, pass: (ms: number) => (time += ms) };
}

/** Lets everything happen that does not wait for anything. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
}

describe('TaskQueue', () => {
  it('lets as many run as it may, and the rest in the order they came', async () => {
    const queue = new TaskQueue({ concurrency: 2, maxQueue: 10 });
    const begun: number[] = [];
    const turns = [0, 1, 2, 3, 4].map(async (task) => {
      const turn = await queue.enter(never);
      begun.push(task);
      return turn;
    });
    await settle();
    expect(begun).toEqual([0, 1]);
    expect(queue.length).toBe(3);
    (await turns[1])?.leave();
    await settle();
    expect(begun).toEqual([0, 1, 2]);
    (await turns[0])?.leave();
    (await turns[2])?.leave();
    await settle();
    expect(begun).toEqual([0, 1, 2, 3, 4]);
    expect(queue.length).toBe(0);
  });

  it('says how long a turn took to get', async () => {
    const { now, pass } = clock();
    const queue = new TaskQueue({ concurrency: 1, maxQueue: 1, now });
    const first = await queue.enter(never);
    expect(first.queueMs).toBe(0);
    const second = queue.enter(never);
    pass(250);
    first.leave();
    expect((await second).queueMs).toBe(250);
  });

  it('frees a place once, however often its turn is left', async () => {
    const queue = new TaskQueue({ concurrency: 1, maxQueue: 2 });
    const first = await queue.enter(never);
    const second = queue.enter(never);
    const third = queue.enter(never);
    first.leave();
    first.leave();
    first.leave();
    await second;
    await settle();
    expect(queue.length).toBe(1);
    (await second).leave();
    await third;
  });

  describe('when it is full', () => {
    it('refuses at once, and says when to come back', async () => {
      const { now, pass } = clock();
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 2, now });
      const first = await queue.enter(never);
      pass(100);
      first.leave(); // tasks take 100 ms
      await queue.enter(never);
      void queue.enter(never);
      void queue.enter(never);
      expect(await rejection(queue.enter(never))).toMatchObject({
        code: 'RESOURCE_EXHAUSTED',
        reason: 'QUEUE_FULL',
        retryable: true,
        retryAfterMs: 300,
        message: '1 tasks run and 2 wait, as many as maxQueue allows; try again in 300 ms',
      });
      expect(queue.length).toBe(2);
    });

    it('says so even where nobody may wait, and never to come back at once', async () => {
      const { now, pass } = clock();
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 0, now });
      const first = await queue.enter(never);
      expect(await rejection(queue.enter(never))).toMatchObject({ reason: 'QUEUE_FULL', retryAfterMs: 1 });
      pass(80);
      first.leave();
      await queue.enter(never);
      expect(await rejection(queue.enter(never))).toMatchObject({ retryAfterMs: 80 });
    });

    it('follows how long tasks take of late', async () => {
      const { now, pass } = clock();
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 0, now });
      for (const tookMs of [100, 200]) {
        const turn = await queue.enter(never);
        pass(tookMs);
        turn.leave();
      }
      await queue.enter(never);
      expect(await rejection(queue.enter(never))).toMatchObject({ retryAfterMs: 110 });
    });
  });

  describe('a task whose signal is aborted', () => {
    it('leaves the queue, and is told how long it waited', async () => {
      const { now, pass } = clock();
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 5, now });
      const first = await queue.enter(never);
      const controller = new AbortController();
      const waiting = queue.enter(controller.signal);
      const behind = queue.enter(never);
      pass(40);
      const expired = new CommError('DEADLINE_EXCEEDED', 'no answer within 40 ms');
      controller.abort(expired);
      expect(await rejection(waiting)).toMatchObject({
        code: 'DEADLINE_EXCEEDED',
        message: 'no answer within 40 ms (after 40 ms in the queue; the work never began)',
        cause: expired,
      });
      expect(queue.length).toBe(1);
      first.leave();
      await behind;
    });

    it('is CANCELLED where the signal does not say why', async () => {
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 5 });
      await queue.enter(never);
      const controller = new AbortController();
      const waiting = queue.enter(controller.signal);
      controller.abort();
      expect(await rejection(waiting)).toMatchObject({ code: 'CANCELLED' });
    });

    it('does not enter at all when it is aborted before', async () => {
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 5 });
      expect(await rejection(queue.enter(AbortSignal.abort()))).toMatchObject({ code: 'CANCELLED' });
      await queue.enter(never);
    });

    it('never begins when it is aborted just as its turn comes', async () => {
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 5 });
      const first = await queue.enter(never);
      const controller = new AbortController();
      const waiting = queue.enter(controller.signal);
      const behind = queue.enter(never);
      first.leave();
      controller.abort();
      expect(await rejection(waiting)).toMatchObject({ code: 'CANCELLED' });
      await behind;
    });

    it('leaves no listener behind, however its wait ends', async () => {
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 50 });
      const { signal } = new AbortController();
      const first = await queue.enter(signal);
      const waiting = Array.from({ length: 50 }, () => queue.enter(signal));
      expect(getEventListeners(signal, 'abort')).toHaveLength(50);
      first.leave();
      (await waiting[0])?.leave();
      await waiting[1];
      const closing = queue.close();
      await Promise.all(waiting.slice(2).map(rejection));
      (await waiting[1])?.leave();
      await closing;
      expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    });
  });

  describe('when it is closed', () => {
    beforeEach(() => {
      vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    });
    afterEach(() => {
      vi.useRealTimers();
    });

    it('refuses those that wait and those that come, and waits for those that run', async () => {
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 5 });
      const running = await queue.enter(never);
      const waiting = queue.enter(never);
      let closed = false;
      const closing = queue.close().then(() => (closed = true));
      const stopping = { code: 'UNAVAILABLE', reason: 'STOPPING', retryable: true };
      expect(await rejection(waiting)).toMatchObject(stopping);
      expect(await rejection(queue.enter(never))).toMatchObject(stopping);
      await vi.advanceTimersByTimeAsync(60_000);
      expect(closed).toBe(false);
      running.leave();
      await closing;
    });

    it('is closed at once when nothing runs, and may be closed again', async () => {
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 5 });
      await queue.close();
      await queue.close();
    });

    it('tells everybody who closes it when it is empty', async () => {
      const queue = new TaskQueue({ concurrency: 2, maxQueue: 5 });
      const turns = [await queue.enter(never), await queue.enter(never)];
      const closings = [queue.close(), queue.close()];
      for (const turn of turns) turn.leave();
      await Promise.all(closings);
    });

    it('gives up on a task that was told to stop and does not', async () => {
      const queue = new TaskQueue({ concurrency: 2, maxQueue: 5 });
      const before = new AbortController();
      const after = new AbortController();
      await queue.enter(before.signal);
      await queue.enter(after.signal);
      before.abort();
      let closed = false;
      const closing = queue.close().then(() => (closed = true));
      await vi.advanceTimersByTimeAsync(60_000);
      expect(closed).toBe(false);
      after.abort();
      await vi.advanceTimersByTimeAsync(999);
      expect(closed).toBe(false);
      await vi.advanceTimersByTimeAsync(1);
      await closing;
    });

    it('keeps no timer for a task that stopped when it was told to', async () => {
      const queue = new TaskQueue({ concurrency: 1, maxQueue: 5 });
      const controller = new AbortController();
      const turn = await queue.enter(controller.signal);
      const closing = queue.close();
      controller.abort();
      turn.leave();
      await closing;
      expect(vi.getTimerCount()).toBe(0);
    });
  });

  it.each([
    [{ concurrency: 0, maxQueue: 1 }, 'concurrency must be an integer of 1 or more; it is 0'],
    [{ concurrency: 1.5, maxQueue: 1 }, 'concurrency must be an integer of 1 or more; it is 1.5'],
    [{ concurrency: Number.NaN, maxQueue: 1 }, 'concurrency must be an integer of 1 or more; it is NaN'],
    [{ concurrency: 1, maxQueue: -1 }, 'maxQueue must be an integer of 0 or more; it is -1'],
    [
      { concurrency: 1, maxQueue: Number.POSITIVE_INFINITY },
      'maxQueue must be an integer of 0 or more; it is Infinity',
    ],
  ])('cannot be made of %o', (options, message) => {
    expect(() => new TaskQueue(options)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT', message }));
  });

  it('behaves as its model does, whatever happens in whatever order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 0, max: 4 }),
        commands,
        async (concurrency, maxQueue, steps) => {
          const world = new World(concurrency, maxQueue);
          for (const step of steps) {
            world.do(step);
            await settle();
            world.check();
          }
          await world.finish();
        },
      ),
      { numRuns: 300 },
    );
  });
});

type Command = { readonly type: 'enter' } | { readonly type: 'leave' | 'abort'; readonly which: number };

const commands = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.constant<Command>({ type: 'enter' }) },
    {
      weight: 2,
      arbitrary: fc.record({ type: fc.constantFrom('leave' as const, 'abort' as const), which: fc.nat(9) }),
    },
  ),
  { maxLength: 40 },
);

interface TaskState {
  readonly id: number;
  readonly controller: AbortController;
  state: 'waiting' | 'running' | 'refused' | 'aborted' | 'left';
  turn?: Turn;
  observed?: 'running' | 'refused' | 'aborted';
}

/** A queue beside the plainest thing that could be meant by one: two lists. */
class World {
  readonly #queue: TaskQueue;
  readonly #tasks: TaskState[] = [];

  constructor(
    readonly concurrency: number,
    readonly maxQueue: number,
  ) {
    this.#queue = new TaskQueue({ concurrency, maxQueue });
  }

  do(command: Command): void {
    if (command.type === 'enter') {
      this.#enter();
      return;
    }
    const candidates = this.#tasks.filter(({ state }) => state === (command.type === 'leave' ? 'running' : 'waiting'));
    const task = candidates[command.which % (candidates.length || 1)];
    if (!task) return;
    if (command.type === 'abort') {
      task.state = 'aborted';
      task.controller.abort();
      return;
    }
    task.state = 'left';
    task.turn?.leave();
    const next = this.#in('waiting')[0];
    if (next) next.state = 'running';
  }

  check(): void {
    expect(this.#tasks.map(({ observed }) => observed ?? 'waiting')).toEqual(
      this.#tasks.map(({ state }) => (state === 'left' ? 'running' : state)),
    );
    expect(this.#queue.length).toBe(this.#in('waiting').length);
    expect(this.#in('running').length).toBeLessThanOrEqual(this.concurrency);
  }

  async finish(): Promise<void> {
    const closing = this.#queue.close();
    for (const task of this.#in('running')) task.turn?.leave();
    await closing;
    expect(this.#queue.length).toBe(0);
  }

  #enter(): void {
    const running = this.#in('running').length < this.concurrency;
    const waiting = this.#in('waiting').length < this.maxQueue;
    const state = running ? 'running' : waiting ? 'waiting' : 'refused';
    const task: TaskState = { id: this.#tasks.length, controller: new AbortController(), state };
    this.#tasks.push(task);
    this.#queue.enter(task.controller.signal).then(
      (turn) => {
        task.turn = turn;
        task.observed = 'running';
      },
      (error: CommError) => {
        task.observed = error.reason === 'QUEUE_FULL' ? 'refused' : 'aborted';
      },
    );
  }

  #in(state: TaskState['state']): TaskState[] {
    return this.#tasks.filter((task) => task.state === state);
  }
}
