import { randomUUID } from 'node:crypto';
import type { CallContext } from '../compute-function.js';
import { CommError } from '../errors.js';

/** What is known of a call before anything of it is read, however it came. */
export interface IncomingCall {
  /** In milliseconds since the epoch; `Infinity` for none. */
  readonly deadlineMs: number;
  readonly metadata: Readonly<Record<string, string>>;
  /** The caller's network address. */
  readonly peer: string;
  readonly method: 'compute' | 'stream' | 'info';
  /** Where in its buffer a response begins on the wire, so that its tensors can be aligned. */
  readonly base: 0 | 5;
  /** The largest response that the caller takes, in bytes. */
  readonly maxResponseBytes: number;
}

/** A call from its arrival to when its work has ended and its answer has been sent. */
export class OpenCall {
  readonly incoming: IncomingCall;
  /** Rejects with the reason when the call is ended from the server's side. */
  readonly aborted: Promise<never>;
  /** Resolves when all of the answer has been sent, or nobody is there any more to take it. */
  readonly over: Promise<void>;
  /** Tells the call that all of its answer has been sent, or that nobody takes it. */
  end!: () => void;
  readonly #controller = new AbortController();
  #reject!: (reason: CommError) => void;
  #requestId: string | undefined;
  #answered = false;

  constructor(incoming: IncomingCall) {
    this.incoming = incoming;
    this.aborted = new Promise<never>((_, reject) => (this.#reject = reject));
    // The caller may be gone before anybody waits for the answer.
    this.aborted.catch(noop);
    this.over = new Promise<void>((resolve) => (this.end = resolve));
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The call's id: the server's own until the caller's is read from the request. */
  get requestId(): string {
    this.#requestId ??= randomUUID();
    return this.#requestId;
  }

  set requestId(requestId: string) {
    this.#requestId = requestId;
  }

  /** What the compute function is told of the call. */
  context(): CallContext {
    const { deadlineMs, metadata } = this.incoming;
    const { signal, requestId } = this;
    return deadlineMs === Number.POSITIVE_INFINITY
      ? { signal, requestId, metadata }
      : { signal, requestId, metadata, deadlineMs };
  }

  /** The caller has taken the call back, or its time is up, or it has gone. */
  cancel(expired: boolean): void {
    if (!this.#answered) this.#controller.abort(expired ? deadlinePassed() : callerGone());
  }

  /** Ends the call from the server's side. */
  abort(reason: CommError): void {
    this.#controller.abort(reason);
    this.#reject(reason);
  }

  /** The answer is known: from here on nothing can be aborted. */
  answered(): void {
    this.#answered = true;
  }
}

export function deadlinePassed(): CommError {
  return new CommError('DEADLINE_EXCEEDED', "the caller's deadline has passed");
}

function callerGone(): CommError {
  return new CommError('CANCELLED', 'the caller cancelled the call, or its connection was lost');
}

function noop(): void {}
