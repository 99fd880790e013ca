import { randomUUID } from 'node:crypto';
import type { CallContext } from '../compute-function.js';
import { CommError } from '../errors.js';
import type { AuthorizedCall } from './authorization.js';

/** What is known of a call before anything of it is read, however it came. */
export interface IncomingCall extends AuthorizedCall {
  /** In milliseconds since the epoch; `Infinity` for none. */
  readonly deadlineMs: number;
  /** Where in its buffer a response begins on the wire, so that its tensors can be aligned. */
  readonly base: 0 | 5;
  /** The largest response that the caller takes, in bytes. */
  readonly maxResponseBytes: number;
}

/** A call from its arrival to when its work has ended and its answer has been sent. */
export class OpenCall {
  readonly incoming: IncomingCall;
  /** Why the call is not let in, if it is not; where that takes time to find out, a promise that rejects with it. */
  admission: CommError | Promise<void> | undefined;
  /** Called when the call is ended from the server's side. */
  onAbort: ((reason: CommError) => void) | undefined;
  #onOver: (() => void) | undefined;
  #isOver = false;
  #controller: AbortController | undefined;
  #reason: CommError | undefined;
  #requestId: string | undefined;
  #answered = false;

  constructor(incoming: IncomingCall) {
    this.incoming = incoming;
  }

  /** Made when it is first looked at, which for most calls is never: making one takes as long as much of the rest. */
  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (this.#reason) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** Why the call is over before it was answered, if it is. */
  get abortReason(): CommError | undefined {
    return this.#reason;
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
    return new ServedContext(this);
  }

  /** The caller has taken the call back, or its time is up, or it has gone. */
  cancel(expired: boolean): void {
    if (!this.#answered) this.#stop(expired ? deadlinePassed() : callerGone());
  }

  /** Ends the call from the server's side. */
  abort(reason: CommError): void {
    this.#stop(reason);
    this.onAbort?.(reason);
  }

  #stop(reason: CommError): void {
    this.#reason ??= reason;
    this.#controller?.abort(reason);
  }

  /** All of the answer has been sent, or nobody is there any more to take it. */
  end(): void {
    this.#isOver = true;
    this.#onOver?.();
  }

  /** Calls back when that is so. */
  whenOver(callback: () => void): void {
    if (this.#isOver) callback();
    else this.#onOver = callback;
  }

  /** The answer is known: from here on nothing can be aborted. */
  answered(): void {
    this.#answered = true;
  }
}

/**
 * Its signal is made when it is first looked at, and its own, so that a copy of the context has it too. All contexts share
 * one getter: with a getter of its own each would have a hidden class of its own, which lives in V8's old generation and
 * keeps all of the call alive until the next full collection.
 */
class ServedContext implements CallContext {
  static readonly #signal = { get: ServedContext.#readSignal, enumerable: true };
  declare readonly signal: AbortSignal;
  readonly requestId: string;
  readonly metadata: Readonly<Record<string, string>>;
  declare readonly deadlineMs?: number;
  readonly #opened: OpenCall;

  constructor(opened: OpenCall) {
    const { metadata, deadlineMs } = opened.incoming;
    this.#opened = opened;
    Object.defineProperty(this, 'signal', ServedContext.#signal);
    this.requestId = opened.requestId;
    this.metadata = metadata;
    if (deadlineMs !== Number.POSITIVE_INFINITY) this.deadlineMs = deadlineMs;
  }

  static #readSignal(this: ServedContext): AbortSignal {
    // biome-ignore lint/complexity/noThisInStatic: a getter, called on the context
    return this.#opened.signal;
  }
}

export function deadlinePassed(): CommError {
  return new CommError('DEADLINE_EXCEEDED', "the caller's deadline has passed");
}

function callerGone(): CommError {
  return new CommError('CANCELLED', 'the caller cancelled the call, or its connection was lost');
}
