import { getEventListeners } from 'node:events';
import { describe, expect, it, vi } from 'vitest';
import { CommError } from './errors.js';
import { abortError, onAbort } from './signals.js';

describe('onAbort', () => {
  it('calls the listener once, when the signal is aborted', () => {
    const controller = new AbortController();
    const listener = vi.fn();
    onAbort(controller.signal, listener);
    expect(listener).not.toHaveBeenCalled();
    controller.abort();
    controller.abort();
    expect(listener).toHaveBeenCalledOnce();
  });

  it('stops listening when it is told to', () => {
    const controller = new AbortController();
    const listener = vi.fn();
    onAbort(controller.signal, listener)();
    controller.abort();
    expect(listener).not.toHaveBeenCalled();
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
  });

  it('lets any number listen to one signal, without the warning of a leak', () => {
    // The warning itself would fail this file.
    const { signal } = new AbortController();
    for (let times = 0; times < 100; times++) onAbort(signal, () => {});
    expect(getEventListeners(signal, 'abort')).toHaveLength(100);
  });
});

describe('abortError', () => {
  it('is the reason where that is a CommError', () => {
    const reason = new CommError('DEADLINE_EXCEEDED', 'late');
    expect(abortError(AbortSignal.abort(reason))).toBe(reason);
  });

  it('is CANCELLED where it is anything else, which becomes the cause', () => {
    expect(abortError(AbortSignal.abort('enough'))).toMatchObject({ code: 'CANCELLED', cause: 'enough' });
  });
});
