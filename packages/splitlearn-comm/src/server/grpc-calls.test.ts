import { EventEmitter } from 'node:events';
import { Metadata } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CommError } from '../errors.js';
import type { Answers } from './async-compute-servicer.js';
import { OpenCall } from './call-context.js';
import { type GrpcCall, openCall } from './grpc-calls.js';

/** A call as grpc-js makes it, as far as it is looked at. */
class FakeCall extends EventEmitter {
  readonly metadata = new Metadata();
  cancelled = false;
  certificate: object | undefined;

  constructor(readonly deadline: number | Date) {
    super();
  }

  getDeadline(): number | Date {
    return this.deadline;
  }

  getPeer(): string {
    return '10.0.0.7:51234';
  }

  getAuthContext(): object {
    return this.certificate ? { sslPeerCertificate: this.certificate } : {};
  }
}

function open(call: FakeCall): OpenCall {
  const answers = { maxMessageLength: 1_000, open: (incoming) => new OpenCall(incoming) } as Partial<Answers>;
  return openCall(call as unknown as GrpcCall, 'compute', answers as Answers);
}

/** Resolves when a call is over. */
function over(opened: OpenCall): Promise<void> {
  return new Promise((resolve) => opened.whenOver(resolve));
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
    await over(opened);
  });

  it('of a call that was answered is over when grpc-js says so, and not aborted', async () => {
    const call = new FakeCall(Number.POSITIVE_INFINITY);
    const opened = open(call);
    opened.answered();
    call.emit('cancelled');
    await over(opened);
    expect(opened.signal.aborted).toBe(false);
  });

  it('knows all that can be known before the request is read', () => {
    const call = new FakeCall(NOW + 5_000);
    call.metadata.set('x-tenant', 'acme');
    expect(open(call).incoming.certificate).toBeUndefined();
    call.certificate = { subject: { CN: 'test client' } };
    expect(open(call).incoming).toEqual({
      certificate: { subject: { CN: 'test client' } },
      deadlineMs: NOW + 5_000,
      metadata: { 'x-tenant': 'acme' },
      peer: '10.0.0.7:51234',
      method: 'compute',
      base: 5,
      maxResponseBytes: 1_000,
    });
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

describe('an open call', () => {
  const opened = () => open(new FakeCall(Number.POSITIVE_INFINITY));
  const stopping = new CommError('UNAVAILABLE', 'stopping');

  it('can be ended from the server’s side, whether its signal was looked at before or is later', () => {
    for (const early of [true, false]) {
      const call = opened();
      if (early) expect(call.signal.aborted).toBe(false);
      const told: CommError[] = [];
      call.onAbort = (reason) => told.push(reason);
      call.abort(stopping);
      expect([call.signal.reason, call.abortReason, ...told]).toEqual([stopping, stopping, stopping]);
    }
  });

  it('keeps to the first reason', () => {
    for (const early of [true, false]) {
      const call = opened();
      if (early) expect(call.signal.aborted).toBe(false);
      call.cancel(true);
      call.abort(stopping);
      call.cancel(false);
      expect(call.abortReason).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
      expect(call.signal.reason).toBe(call.abortReason);
    }
  });

  it('has an id of its own until it is told the caller’s', () => {
    const [first, second] = [opened(), opened()];
    expect(first.requestId).toMatch(/^[0-9a-f-]{36}$/);
    expect(first.requestId).toBe(first.requestId);
    expect(second.requestId).not.toBe(first.requestId);
    first.requestId = 'mine';
    expect(first.requestId).toBe('mine');
  });

  it('says that it is over once, to who asks before or after', () => {
    const call = opened();
    let told = 0;
    call.whenOver(() => told++);
    expect(told).toBe(0);
    call.end();
    expect(told).toBe(1);
    call.whenOver(() => told++);
    expect(told).toBe(2);
  });
});
