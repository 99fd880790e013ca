import { EventEmitter } from 'node:events';
import { Metadata } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { rejection } from '../../test/support/deferred.js';
import { CommError } from '../errors.js';
import { openCall, type ServerCall } from './call-context.js';

/** A call as grpc-js makes it, as far as it is looked at. */
class FakeCall extends EventEmitter {
  readonly metadata = new Metadata();
  cancelled = false;

  constructor(readonly deadline: number | Date) {
    super();
  }

  getDeadline(): number | Date {
    return this.deadline;
  }
}

function open(call: FakeCall) {
  return openCall(call as unknown as ServerCall);
}

const NOW = 1_700_000_000_000;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date'], now: NOW });
});
afterEach(() => {
  vi.useRealTimers();
});

describe('openCall', () => {
  // A caller cancels when its time is up by its own clock, which is not that of the server.
  it.each([
    [60_000, 0, 'CANCELLED'],
    [60_000, 59_749, 'CANCELLED'],
    [60_000, 59_750, 'DEADLINE_EXCEEDED'],
    [60_000, 60_001, 'DEADLINE_EXCEEDED'],
    [100, 49, 'CANCELLED'],
    [100, 50, 'DEADLINE_EXCEEDED'],
    [0, 0, 'DEADLINE_EXCEEDED'],
    [-5, 0, 'DEADLINE_EXCEEDED'],
    [Number.POSITIVE_INFINITY, 1e9, 'CANCELLED'],
  ])('given %d ms and cancelled after %d ms is %s', (timeoutMs, afterMs, code) => {
    const call = new FakeCall(NOW + timeoutMs);
    const { signal } = open(call);
    vi.setSystemTime(NOW + afterMs);
    expect(signal.aborted).toBe(false);
    call.emit('cancelled');
    expect(signal.reason).toBeInstanceOf(CommError);
    expect(signal.reason).toMatchObject({ code });
  });

  it('of a call that is gone already is aborted and over', async () => {
    const call = new FakeCall(Number.POSITIVE_INFINITY);
    call.cancelled = true;
    const opened = open(call);
    expect(opened.signal.reason).toMatchObject({ code: 'CANCELLED' });
    await opened.over;
  });

  it('of a call that was answered is over when grpc-js says so, and not aborted', async () => {
    const call = new FakeCall(Number.POSITIVE_INFINITY);
    const opened = open(call);
    opened.answered();
    call.emit('cancelled');
    await opened.over;
    expect(opened.signal.aborted).toBe(false);
  });

  it('can be ended from the server’s side', async () => {
    const opened = open(new FakeCall(Number.POSITIVE_INFINITY));
    const stopping = new CommError('UNAVAILABLE', 'stopping');
    opened.abort(stopping);
    expect(opened.signal.reason).toBe(stopping);
    expect(await rejection(opened.aborted)).toBe(stopping);
  });

  it('tells the compute function of id, deadline and what the caller sent along', () => {
    const call = new FakeCall(new Date(NOW + 5_000));
    call.metadata.set('x-tenant', 'acme');
    call.metadata.set('user-agent', 'grpc');
    const opened = open(call);
    opened.requestId = 'mine';
    expect(opened.context()).toEqual({
      signal: opened.signal,
      requestId: 'mine',
      metadata: { 'x-tenant': 'acme' },
      deadlineMs: NOW + 5_000,
    });
  });

  it('leaves the deadline out where there is none', () => {
    expect(open(new FakeCall(Number.POSITIVE_INFINITY)).context()).not.toHaveProperty('deadlineMs');
  });
});
