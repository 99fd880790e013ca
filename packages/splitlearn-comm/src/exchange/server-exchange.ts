import type { ServerDuplexStream } from '@grpc/grpc-js';
import { splitlearn } from '#proto';
import { MAX_TIMER_MS } from '../check-options.js';
import { CommError } from '../errors.js';
import { takeOver } from '../grpc/byte-stream.js';
import { messageTooLarge } from '../grpc/channel.js';
import { fromMetadata } from '../grpc/metadata.js';
import { toCallStatus, toStatus } from '../grpc/status.js';
import { NumberMap } from '../number-map.js';
import type { Answers, Outcome } from '../server/async-compute-servicer.js';
import { deadlinePassed, type OpenCall } from '../server/call-context.js';
import { callerOf } from '../server/grpc-calls.js';
import { Deadlines } from './deadlines.js';
import { ExchangePeer, READS_WHILE_WRITING } from './exchange-peer.js';
import type { Frame } from './frames.js';
import { readHello, writeHello } from './hello.js';
import { announcedBytes, IncomingMessage } from './incoming-message.js';
import { MESSAGE_OVERHEAD_BYTES, MessageQueue, SendWindow } from './session-window.js';
import type { KeepAlive } from './watchdog.js';

import v1 = splitlearn.comm.v1;

type ExchangeCall = ServerDuplexStream<Uint8Array, Uint8Array>;

export interface ExchangeLimits {
  /** Calls that may be open on one connection. */
  readonly maxCalls: number;
  /** Bytes of requests that may be held at once, on all connections. */
  readonly maxRequestBytes: number;
  /** How long nothing may come of a message that has begun to come. */
  readonly slowPeerTimeoutMs: number;
  readonly keepAlive: KeepAlive;
}

/** Less in that time counts as nothing. */
const SLOW_PEER_BYTES = 1024;

/** A call that is open: its request still coming, being computed, or its answer going out. */
interface Entry {
  readonly opened: OpenCall;
  readonly session: boolean;
  readonly queue: MessageQueue | undefined;
  readonly window: SendWindow | undefined;
  partial: IncomingMessage | undefined;
  partialTimer: NodeJS.Timeout | undefined;
  heldBytes: number;
  begun: boolean;
  expired: boolean;
}

/** A server's end of one Exchange: brings its calls to the servicer, and their answers back. */
export class ServerExchange {
  readonly #call: ExchangeCall;
  readonly #answers: Answers;
  readonly #limits: ExchangeLimits;
  readonly #budget: { bytes: number };
  readonly #entries = new NumberMap<Entry>();
  readonly #peer: ExchangePeer;
  readonly #hello: v1.IHello;
  readonly #caller: ReturnType<typeof callerOf>;
  readonly #metadata: Readonly<Record<string, string>>;
  readonly #maxResponseBytes: number;
  readonly #deadlines = new Deadlines((nowMs) => this.#expire(nowMs));
  #draining = false;
  #over = false;

  constructor(
    call: ExchangeCall,
    answers: Answers,
    limits: ExchangeLimits,
    budget: { bytes: number },
    over: () => void,
  ) {
    this.#call = call;
    this.#answers = answers;
    this.#limits = limits;
    this.#budget = budget;
    this.#hello = readHello(call.metadata);
    this.#caller = callerOf(call);
    this.#metadata = fromMetadata(call.metadata);
    this.#maxResponseBytes = Number(this.#hello.maxMessageBytes) || answers.maxMessageLength;
    const end = () => {
      this.#end();
      over();
    };
    call.once('cancelled', end);
    call.once('close', end);
    call.sendMetadata(
      writeHello({
        maxMessageBytes: answers.maxMessageLength,
        maxCalls: limits.maxCalls,
        readsWhileWriting: READS_WHILE_WRITING,
      }),
    );
    const stream = takeOver(call, { data: (chunk) => this.#receive(chunk), end: () => this.drain() });
    this.#peer = new ExchangePeer({
      side: 'server',
      stream,
      hello: this.#hello,
      calls: {
        size: () => this.#entries.size,
        begin: (frame) => this.#begin(frame),
        finish: (frame, message) => this.#finish(frame, message),
      },
      maxMessageLength: answers.maxMessageLength,
      keepAlive: limits.keepAlive,
      giveUp: () =>
        this.#fail(new CommError('UNAVAILABLE', 'the client takes and sends nothing', { reason: 'STALLED' })),
    });
  }

  drain(): void {
    if (this.#draining || this.#over) return;
    this.#draining = true;
    this.#peer.sender.sendConnection({ draining: true });
    this.#endWhenDrained();
  }

  #receive(chunk: Uint8Array): void {
    // What still comes after an error must not open anything.
    if (this.#over) return;
    try {
      this.#peer.receive(chunk);
    } catch (error) {
      this.#fail(error);
    }
  }

  #begin(frame: Frame): IncomingMessage | undefined {
    // Not always in the order of their numbers: a large request gives way to smaller ones.
    if (frame.begin && !this.#entries.has(frame.call)) this.#open(frame, frame.begin);
    const entry = this.#entries.get(frame.call);
    if (!entry || frame.pieceBytes === undefined) return undefined;
    if (!entry.partial) {
      if (entry.begun && !entry.session) return undefined;
      const refusal = this.#refuseBytes(announcedBytes(frame));
      if (refusal) {
        this.#refuse(frame.call, refusal);
        return undefined;
      }
      const byteLength = announcedBytes(frame);
      entry.partial = new IncomingMessage(byteLength);
      const heldBytes = byteLength + (entry.session ? MESSAGE_OVERHEAD_BYTES : 0);
      entry.heldBytes += heldBytes;
      this.#budget.bytes -= heldBytes;
      if (byteLength > frame.pieceBytes) this.#watchPartial(frame.call, entry, entry.partial);
    }
    if (entry.partial.takes(frame.pieceBytes)) return entry.partial;
    this.#refuse(frame.call, new CommError('INVALID_ARGUMENT', 'a message has more bytes than it said it would'));
    return undefined;
  }

  #finish(frame: Frame, message: Uint8Array | undefined): void {
    const entry = this.#entries.get(frame.call);
    if (!entry) return;
    if (frame.cancel) {
      entry.opened.cancel(frame.cancel === 4);
      this.#close(frame.call);
      return;
    }
    if (frame.takenBytes) entry.window?.taken(frame.takenBytes);
    if (message) {
      entry.partial = undefined;
      clearInterval(entry.partialTimer);
      if (entry.queue) entry.queue.push(message);
      else void this.#answerUnary(frame.call, entry, message);
    }
    if (!frame.end) return;
    if (entry.queue && !entry.partial) entry.queue.end();
    else if (entry.partial || !entry.begun)
      this.#refuse(frame.call, new CommError('INVALID_ARGUMENT', 'the call has ended before its request was complete'));
  }

  #open(frame: Frame, begin: v1.ICallBegin): void {
    const refusal = this.#refuseCall();
    if (refusal) {
      this.#sendStatus(frame.call, refusal);
      return;
    }
    const session = begin.session === true;
    const { timeoutMs } = begin;
    const bounded = typeof timeoutMs === 'number' && timeoutMs <= MAX_TIMER_MS;
    const { peer, certificate } = this.#caller;
    // Not `{ ...this.#caller }`: what V8 makes of that survives every scavenge, and the call with it.
    const opened = this.#answers.open({
      peer,
      certificate,
      deadlineMs: bounded ? Date.now() + timeoutMs : Number.POSITIVE_INFINITY,
      metadata: this.#metadataOf(begin),
      method: session ? 'stream' : 'compute',
      base: 0,
      maxResponseBytes: this.#maxResponseBytes,
    });
    if (opened.admission instanceof CommError) {
      this.#sendStatus(frame.call, opened.admission);
      return;
    }
    const entry: Entry = {
      opened,
      session,
      queue: session ? new MessageQueue((takenBytes) => this.#taken(frame.call, takenBytes)) : undefined,
      window: session ? new SendWindow() : undefined,
      partial: undefined,
      partialTimer: undefined,
      heldBytes: 0,
      begun: false,
      expired: false,
    };
    this.#entries.set(frame.call, entry);
    if (bounded) this.#deadlines.add(opened.incoming.deadlineMs);
    this.#peer.watch();
    if (entry.queue) void this.#answerSession(frame.call, entry, entry.queue, entry.window as SendWindow);
  }

  /** A message of which nothing comes any more holds memory that others could use. */
  #watchPartial(call: number, entry: Entry, partial: IncomingMessage): void {
    const { slowPeerTimeoutMs } = this.#limits;
    if (slowPeerTimeoutMs > MAX_TIMER_MS) return;
    let seenBytes = 0;
    entry.partialTimer = setInterval(() => {
      const stuck = partial.filledBytes - seenBytes < SLOW_PEER_BYTES;
      seenBytes = partial.filledBytes;
      if (entry.partial !== partial) clearInterval(entry.partialTimer);
      else if (stuck) {
        const message = `the rest of the request did not come within ${slowPeerTimeoutMs} ms; check the network, and that the caller still runs`;
        this.#refuse(call, new CommError('DEADLINE_EXCEEDED', message, { reason: 'SLOW_PEER' }));
      }
    }, slowPeerTimeoutMs).unref();
  }

  /** Ends the calls whose time is up; says when that of the next one is. */
  #expire(nowMs: number): number {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [call, entry] of this.#entries.entries()) {
      const { deadlineMs } = entry.opened.incoming;
      if (deadlineMs > nowMs) nextMs = Math.min(nextMs, deadlineMs);
      else if (!entry.expired) {
        entry.expired = true;
        entry.opened.abort(deadlinePassed());
        // Of one that is not complete nobody has been told yet.
        if (!entry.begun) this.#refuse(call, deadlinePassed());
      }
    }
    return nextMs;
  }

  /** What was said when the stream was opened goes for each of its calls. */
  #metadataOf({ metadata = {} }: v1.ICallBegin): Readonly<Record<string, string>> {
    for (const _ in metadata) return { ...this.#metadata, ...metadata };
    return this.#metadata;
  }

  async #answerUnary(call: number, entry: Entry, message: Uint8Array): Promise<void> {
    entry.begun = true;
    const outcome = await this.#answers.unary(message, entry.opened);
    if (this.#entries.get(call) !== entry) return;
    try {
      if (!outcome.ok) throw outcome.error;
      this.#peer.sender.sendMessage({ call, end: true }, outcome.value, () => this.#close(call));
    } catch (error) {
      this.#refuse(call, CommError.from(error));
    }
  }

  async #answerSession(call: number, entry: Entry, queue: MessageQueue, window: SendWindow): Promise<void> {
    entry.begun = true;
    const { opened } = entry;
    const stop = () => {
      queue.abort(opened.signal.reason);
      window.release();
    };
    opened.signal.addEventListener('abort', stop, { once: true });
    const outcome: Outcome<void> = await this.#answers.session(queue, opened, async (message) => {
      await window.write(message.byteLength, (sent) => this.#peer.sender.sendMessage({ call }, message, sent));
      if (opened.abortReason) throw opened.abortReason;
    });
    if (this.#entries.get(call) !== entry) return;
    if (outcome.ok) {
      this.#peer.sender.sendHead({ call, end: true });
      this.#close(call);
    } else this.#refuse(call, outcome.error);
  }

  #taken(call: number, takenBytes: number): void {
    const entry = this.#entries.get(call);
    if (!entry) return;
    entry.heldBytes -= takenBytes;
    this.#budget.bytes += takenBytes;
    this.#peer.sender.sendHead({ call, takenBytes });
  }

  #refuseCall(): CommError | undefined {
    if (this.#draining) return new CommError('UNAVAILABLE', 'the server is stopping', { reason: 'STOPPING' });
    const { maxCalls } = this.#limits;
    if (this.#entries.size < maxCalls) return undefined;
    const message = `more than ${maxCalls} calls are open on this connection; wait for some of them to end`;
    return new CommError('RESOURCE_EXHAUSTED', message, { reason: 'TOO_MANY_CALLS', retryAfterMs: 100 });
  }

  #refuseBytes(byteLength: number): CommError | undefined {
    const { maxMessageLength } = this.#answers;
    if (byteLength > maxMessageLength) return messageTooLarge('request', byteLength, maxMessageLength);
    if (byteLength <= this.#budget.bytes || this.#budget.bytes === this.#limits.maxRequestBytes) return undefined;
    const message = `the requests under way have ${this.#limits.maxRequestBytes} bytes, as many as the server holds at once; try again when some have been answered`;
    return new CommError('RESOURCE_EXHAUSTED', message, { reason: 'TOO_MANY_BYTES', retryAfterMs: 200 });
  }

  /** Ends a call with an error. */
  #refuse(call: number, error: CommError): void {
    this.#sendStatus(call, error);
    const entry = this.#entries.get(call);
    entry?.opened.cancel(false);
    this.#close(call);
  }

  #sendStatus(call: number, error: CommError): void {
    this.#peer.sender.drop(call);
    this.#peer.sender.sendHead({ call, status: v1.CallStatus.encode(toCallStatus(error)).finish() });
  }

  #close(call: number): void {
    const entry = this.#entries.get(call);
    if (!entry) return;
    this.#entries.delete(call);
    clearInterval(entry.partialTimer);
    this.#peer.sender.drop(call);
    this.#budget.bytes += entry.heldBytes;
    entry.queue?.abort(entry.opened.abortReason ?? new CommError('CANCELLED', 'the session is over'));
    entry.window?.release();
    entry.opened.end();
    if (this.#draining) this.#endWhenDrained();
  }

  #endWhenDrained(): void {
    if (this.#entries.size > 0 || this.#over) return;
    this.#peer.sender.whenSent(() => {
      if (this.#entries.size === 0) this.#call.end();
    });
  }

  /** The peer broke the protocol, or is not there: the connection's calls end, and the stream with them. */
  #fail(error: unknown): void {
    if (this.#over) return;
    this.#end();
    this.#call.emit('error', toStatus(error));
  }

  /** Nobody is there any more to take an answer. */
  #end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#deadlines.stop();
    this.#peer?.close();
    for (const [call, entry] of this.#entries.entries()) {
      entry.opened.cancel(false);
      this.#close(call);
    }
  }
}
