import { getEventListeners } from 'node:events';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type ComputeFunction, type ComputeRequest, callContext, streamByCompute } from './compute-function.js';
import { CommError } from './errors.js';
import { tensor } from './tensor.js';

const DAY_MS = 24 * 60 * 60 * 1000;

describe('callContext', () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: 1_000_000 });
  });
  afterEach(() => {
    vi.restoreAllMocks();
    vi.useRealTimers();
  });

  it('makes a context without options: not aborted, no deadline, no metadata, a new id each time', () => {
    const context = callContext();
    expect(context).toEqual({ signal: expect.any(AbortSignal), requestId: expect.any(String), metadata: {} });
    expect(context.signal.aborted).toBe(false);
    expect(context.requestId).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    expect(callContext().requestId).not.toBe(context.requestId);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('passes the id and the metadata on', () => {
    const context = callContext({ requestId: 'r-1', metadata: { tenant: 'a' } });
    expect(context).toMatchObject({ requestId: 'r-1', metadata: { tenant: 'a' } });
  });

  it('aborts with DEADLINE_EXCEEDED when the time has run out, and not before', () => {
    const { signal, deadlineMs } = callContext({ timeoutMs: 50 });
    expect(deadlineMs).toBe(1_000_050);
    vi.advanceTimersByTime(49);
    expect(signal.aborted).toBe(false);
    vi.advanceTimersByTime(1);
    expect(signal.reason).toBeInstanceOf(CommError);
    expect(signal.reason).toMatchObject({ code: 'DEADLINE_EXCEEDED', message: 'no answer within 50 ms' });
  });

  it.each([0, -5])('aborts on the next turn when the timeout is %d ms', (timeoutMs) => {
    const { signal, deadlineMs } = callContext({ timeoutMs });
    expect(deadlineMs).toBe(1_000_000 + timeoutMs);
    vi.advanceTimersByTime(1);
    expect(signal.reason).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });

  it.each([2 ** 31, 365 * DAY_MS, Infinity])(
    'waits when the timeout is %d ms, which is more than a timer can',
    (timeoutMs) => {
      const { signal, deadlineMs } = callContext({ timeoutMs });
      expect(deadlineMs).toBe(1_000_000 + timeoutMs);
      vi.advanceTimersByTime(20 * DAY_MS);
      expect(signal.aborted).toBe(false);
    },
  );

  it('does not keep the process alive for its deadline', () => {
    vi.useRealTimers();
    const setTimeout = vi.spyOn(globalThis, 'setTimeout');
    callContext({ timeoutMs: 60_000 });
    const timer = setTimeout.mock.results[0]?.value as NodeJS.Timeout;
    expect(timer.hasRef()).toBe(false);
    clearTimeout(timer);
  });

  it('aborts with CANCELLED when the given signal does, with its reason as the cause', () => {
    const caller = new AbortController();
    const { signal } = callContext({ signal: caller.signal });
    expect(signal.aborted).toBe(false);
    caller.abort('bored');
    expect(signal.reason).toBeInstanceOf(CommError);
    expect(signal.reason).toMatchObject({ code: 'CANCELLED', cause: 'bored' });
  });

  it('is aborted from the start when the given signal is', () => {
    const { signal } = callContext({ signal: AbortSignal.abort('early'), timeoutMs: 50 });
    expect(signal.reason).toMatchObject({ code: 'CANCELLED', cause: 'early' });
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each([true, false])('keeps a reason that is a CommError already (aborted from the start: %s)', (early) => {
    const reason = new CommError('UNAVAILABLE', 'the server stops');
    const caller = new AbortController();
    if (early) caller.abort(reason);
    const { signal } = callContext({ signal: caller.signal });
    caller.abort(reason);
    expect(signal.reason).toBe(reason);
  });

  it('keeps the first reason when both the signal and the deadline come', () => {
    const caller = new AbortController();
    const cancelledFirst = callContext({ signal: caller.signal, timeoutMs: 50 });
    const expiredFirst = callContext({ signal: caller.signal, timeoutMs: 10 });
    vi.advanceTimersByTime(20);
    caller.abort();
    vi.advanceTimersByTime(50);
    expect(cancelledFirst.signal.reason).toMatchObject({ code: 'CANCELLED' });
    expect(expiredFirst.signal.reason).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  });

  it('leaves no listener on a long-lived signal once the deadline has passed', () => {
    const { signal } = new AbortController();
    for (let call = 0; call < 10; call++) callContext({ signal, timeoutMs: 50 });
    expect(getEventListeners(signal, 'abort')).toHaveLength(10);
    vi.advanceTimersByTime(50);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  it('leaves neither a timer nor a listener once it is cancelled', () => {
    const caller = new AbortController();
    callContext({ signal: caller.signal, timeoutMs: 50 });
    expect(vi.getTimerCount()).toBe(1);
    caller.abort();
    expect(vi.getTimerCount()).toBe(0);
    expect(getEventListeners(caller.signal, 'abort')).toHaveLength(0);
    callContext({ signal: caller.signal });
    expect(getEventListeners(caller.signal, 'abort')).toHaveLength(0);
  });

  it('does not abort the signal it was given', () => {
    const { signal } = new AbortController();
    callContext({ signal, timeoutMs: 1 });
    vi.advanceTimersByTime(2);
    expect(signal.aborted).toBe(false);
  });
});

describe('streamByCompute', () => {
  /** Requests 0, 1, 2, … and a log of what happens to them. */
  function setup(length: number) {
    const log: string[] = [];
    async function* requests(): AsyncGenerator<ComputeRequest> {
      try {
        for (let i = 0; i < length; i++) {
          log.push(`request ${i}`);
          yield { inputs: { i: tensor(i) } };
        }
      } finally {
        log.push('closed');
      }
    }
    const echo: ComputeFunction = {
      async compute({ inputs }) {
        const i = inputs.i?.data[0];
        log.push(`start ${i}`);
        await Promise.resolve();
        log.push(`end ${i}`);
        return { outputs: inputs };
      },
    };
    return { log, requests: requests(), echo };
  }

  it('answers each request in order, one after the other, and takes a request only when its answer is wanted', async () => {
    const { log, requests, echo } = setup(2);
    const responses = streamByCompute(echo, requests, callContext());
    expect(log).toEqual([]);
    for await (const { outputs } of responses) log.push(`response ${outputs.i?.data[0]}`);
    expect(log).toEqual([
      ...['request 0', 'start 0', 'end 0', 'response 0'],
      ...['request 1', 'start 1', 'end 1', 'response 1'],
      'closed',
    ]);
  });

  it('has no responses where there are no requests', async () => {
    const { requests, echo } = setup(0);
    for await (const _ of streamByCompute(echo, requests, callContext())) expect.unreachable();
  });

  it('calls compute on its object, with the request as it is and the context of the session', async () => {
    const context = callContext({ requestId: 'session' });
    const request: ComputeRequest = { model: 'm', inputs: {}, parameters: { t: 1 }, outputs: ['y'] };
    const compute = vi.fn<ComputeFunction['compute']>(async () => ({ outputs: {} }));
    const fn = { compute };
    async function* requests() {
      yield request;
    }
    const responses = streamByCompute(fn, requests(), context);
    for await (const response of responses) expect(response).toEqual({ outputs: {} });
    expect(compute.mock.calls).toEqual([[request, context]]);
    expect(compute.mock.calls[0]?.[0]).toBe(request);
    expect(compute.mock.calls[0]?.[1]).toBe(context);
    expect(compute.mock.contexts[0]).toBe(fn);
  });

  it('ends with the error of a compute, and closes the requests', async () => {
    const { log, requests } = setup(3);
    const error = new CommError('INVALID_ARGUMENT', 'no');
    const fn: ComputeFunction = {
      async compute({ inputs }) {
        if (inputs.i?.data[0] === 1) throw error;
        return { outputs: inputs };
      },
    };
    const responses = streamByCompute(fn, requests, callContext());
    const read = async () => {
      for await (const { outputs } of responses) log.push(`response ${outputs.i?.data[0]}`);
    };
    await expect(read()).rejects.toBe(error);
    expect(log).toEqual(['request 0', 'response 0', 'request 1', 'closed']);
  });

  it('ends with the error of the requests', async () => {
    const error = new CommError('CANCELLED', 'gone');
    const requests = (async function* (): AsyncGenerator<ComputeRequest> {
      yield { inputs: {} };
      throw error;
    })();
    const responses = streamByCompute({ compute: async () => ({ outputs: {} }) }, requests, callContext());
    let count = 0;
    const read = async () => {
      for await (const _ of responses) count++;
    };
    await expect(read()).rejects.toBe(error);
    expect(count).toBe(1);
  });

  it('closes the requests when the reader of the responses leaves', async () => {
    const { log, requests, echo } = setup(3);
    for await (const _ of streamByCompute(echo, requests, callContext())) break;
    expect(log).toEqual(['request 0', 'start 0', 'end 0', 'closed']);
  });
});
