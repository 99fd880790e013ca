import { once } from 'node:events';
import type { ServerDuplexStream, ServerUnaryCall, sendUnaryData, UntypedServiceImplementation } from '@grpc/grpc-js';
import { startWith } from '../async-iterables.js';
import { decodeRequest, encodeResponse, encodeServiceInfo } from '../codec/wire.js';
import type {
  CallContext,
  ComputeFunction,
  ComputeRequest,
  ComputeResponse,
  ServiceInfo,
} from '../compute-function.js';
import { CommError, errorToPlain, knownError } from '../errors.js';
import { assertMessageLength, DEFAULT_MAX_MESSAGE_BYTES } from '../grpc/channel.js';
import { COMPUTE_SERVICE } from '../grpc/service.js';
import { sessionRequests } from '../grpc/session-requests.js';
import { toStatus } from '../grpc/status.js';
import type { Logger } from '../logger.js';
import { selectOutputs } from '../select-outputs.js';
import { CallRecorder, type CallStatistics } from '../statistics.js';
import { VERSION } from '../version.js';
import { type OpenCall, openCall, type ServerCall } from './call-context.js';

const MAX_LOGGED_ID_LENGTH = 200;

type UnaryCall = ServerUnaryCall<Uint8Array, Uint8Array>;
type SessionCall = ServerDuplexStream<Uint8Array, Uint8Array>;

export interface AsyncComputeServicerOptions {
  readonly computeFn: ComputeFunction;
  /** Told of every error that is no `CommError`, with its stack; the caller only sees `INTERNAL`. Default: `console`. */
  readonly logger?: Logger;
  /** The largest response, in bytes, and what `GetServiceInfo` says is the largest message. Default: 64 MiB. */
  readonly maxMessageLength?: number;
}

/**
 * The compute service for a grpc-js `Server` of your own; `AsyncGRPCComputeServer` is this with a server around it.
 * Setting the compute function up before the first call and tearing it down after the last is the owner's.
 *
 * @example
 * server.addService(servicer.definition, servicer.implementation);
 */
export class AsyncComputeServicer {
  readonly definition = COMPUTE_SERVICE;
  readonly implementation: UntypedServiceImplementation;
  readonly #computeFn: ComputeFunction;
  readonly #logger: Logger;
  readonly #maxMessageLength: number;
  readonly #calls = new CallRecorder();
  readonly #open = new Set<OpenCall>();
  readonly #whenIdle: (() => void)[] = [];

  constructor(options: AsyncComputeServicerOptions) {
    const { computeFn, logger = console, maxMessageLength = DEFAULT_MAX_MESSAGE_BYTES } = options;
    if (typeof computeFn?.compute !== 'function') {
      throw new CommError(
        'INVALID_ARGUMENT',
        'computeFn must be a compute function, an object with a method compute()',
      );
    }
    this.#computeFn = computeFn;
    this.#logger = logger;
    this.#maxMessageLength = maxMessageLength;
    this.implementation = {
      Compute: this.#unary((call, opened) => this.#compute(call, opened)),
      ComputeStream: this.#session((call, opened) => this.#stream(call, opened)),
      GetServiceInfo: this.#unary(() => this.#serviceInfo()),
    };
  }

  getStatistics(): CallStatistics {
    return this.#calls.read();
  }

  /** Answers every call that is under way with an error, and aborts its signal, so that well-behaved work ends now. */
  abortAll(reason: CommError): void {
    for (const opened of this.#open) opened.abort(reason);
  }

  /** Resolves when no call is under way: its work has ended, and its answer has been sent. */
  async idle(): Promise<void> {
    if (this.#open.size > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  async #compute(call: UnaryCall, opened: OpenCall): Promise<Uint8Array> {
    const arrivedMs = performance.now();
    const request = this.#decode(call.request, opened);
    const response = await this.#computeFn.compute(request, opened.context());
    return this.#encode(selectOutputs(response, request, 'all'), opened, arrivedMs);
  }

  async #stream(call: SessionCall, opened: OpenCall): Promise<void> {
    let arrivedMs = performance.now();
    const requests = sessionRequests(call, opened.signal, (bytes) => {
      arrivedMs = performance.now();
      return this.#decode(bytes, opened);
    });
    // A session's id is that of its first request, which is read before the compute function is told of the session.
    const first = await requests.next();
    if (first.done) return;
    const all = startWith(first.value, requests);
    const context = opened.context();
    // A stream of its own may read requests ahead: only it knows which one a response answers, and selects outputs itself.
    const responses = this.#computeFn.stream?.(all, context) ?? this.#computeEach(all, context);
    for await (const response of responses) {
      opened.signal.throwIfAborted();
      const bytes = this.#encode(response, opened, arrivedMs);
      if (!call.write(bytes)) await once(call, 'drain', { signal: opened.signal });
    }
  }

  async *#computeEach(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse> {
    for await (const request of requests) {
      yield selectOutputs(await this.#computeFn.compute(request, context), request, 'all');
    }
  }

  #decode(bytes: Uint8Array, opened: OpenCall): ComputeRequest {
    const { request, requestId } = decodeRequest(this.#calls.received(bytes));
    if (requestId) opened.requestId = requestId;
    return request;
  }

  #encode(response: ComputeResponse, { requestId }: OpenCall, arrivedMs: number): Uint8Array {
    const bytes = encodeResponse(response, requestId, performance.now() - arrivedMs);
    assertMessageLength('response', bytes, this.#maxMessageLength);
    return this.#calls.sent(bytes);
  }

  async #serviceInfo(): Promise<Uint8Array> {
    const own: ServiceInfo = (await this.#computeFn.info?.()) ?? { name: '', version: '', models: [] };
    const named = { ...own, name: own.name || '@splitlearn/comm', version: own.version || VERSION };
    return encodeServiceInfo({ ...named, maxMessageBytes: this.#maxMessageLength });
  }

  /** Answers a unary call with what `answer` gives or throws. */
  #unary(answer: (call: UnaryCall, opened: OpenCall) => Promise<Uint8Array>) {
    return async (call: UnaryCall, callback: sendUnaryData<Uint8Array>) => {
      const outcome = await this.#tracked(call, (opened) => answer(call, opened));
      if (outcome.ok) callback(null, outcome.value);
      else callback(outcome.status);
    };
  }

  /** Ends a streaming call when `answer` has, with the status that belongs to what it threw. */
  #session(answer: (call: SessionCall, opened: OpenCall) => Promise<void>) {
    return async (call: SessionCall) => {
      const outcome = await this.#tracked(call, (opened) => answer(call, opened));
      if (outcome.ok) call.end();
      else call.emit('error', outcome.status);
    };
  }

  async #tracked<T>(call: ServerCall, answer: (opened: OpenCall) => Promise<T>) {
    const opened = openCall(call);
    const finish = this.#calls.begin();
    const work = answer(opened);
    this.#open.add(opened);
    void Promise.allSettled([work, opened.over]).then(() => this.#close(opened));
    try {
      const value = await Promise.race([work, opened.aborted]);
      finish();
      return { ok: true, value } as const;
    } catch (error) {
      const known = this.#explain(error, opened);
      finish(known.code);
      return { ok: false, status: toStatus(known) } as const;
    } finally {
      opened.answered();
    }
  }

  #close(opened: OpenCall): void {
    this.#open.delete(opened);
    if (this.#open.size === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** What the caller is told of an error. What it is not told is logged. */
  #explain(error: unknown, { requestId, signal }: OpenCall): CommError {
    const known = knownError(error);
    if (known) return known;
    // Work that was told to stop may fail in ways of its own; what it means to the caller is why it was told to.
    if (signal.aborted) return CommError.from(signal.reason);
    const { stack, message } = errorToPlain(error);
    // The id is the caller's, and must not be able to write lines of its own into the log.
    const id = requestId.replace(/[^\x20-\x7e]/g, '?').slice(0, MAX_LOGGED_ID_LENGTH);
    this.#logger.error(`request ${id} failed: ${stack ?? message}`);
    const explanation = `the compute function failed; the server's log has the error of request ${id}`;
    return new CommError('INTERNAL', explanation, { cause: error });
  }
}
