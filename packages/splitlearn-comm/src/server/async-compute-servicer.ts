import type { UntypedServiceImplementation } from '@grpc/grpc-js';
import { mapAsync, startWith } from '../async-iterables.js';
import { assertInteger, assertMs } from '../check-options.js';
import { supportedEncodings } from '../codec/compression.js';
import { decodeUpTo, encodeAhead } from '../codec/message-encodings.js';
import { encodeServiceInfo } from '../codec/service-info.js';
import {
  type DecodedRequest,
  decodeRequest,
  type EncodedMessage,
  type EncodeTensor,
  encodeResponse,
} from '../codec/wire.js';
import { encodingFromWire } from '../codec/wire-enums.js';
import type {
  CallContext,
  ComputeFunction,
  ComputeRequest,
  ComputeResponse,
  ServiceInfo,
} from '../compute-function.js';
import { CommError, errorToPlain, knownError } from '../errors.js';
import type { ExchangeLimits } from '../exchange/server-exchange.js';
import { assertMessageLength, DEFAULT_MAX_MESSAGE_BYTES } from '../grpc/channel.js';
import { COMPUTE_SERVICE } from '../grpc/service.js';
import type { Logger } from '../logger.js';
import { NumberMap } from '../number-map.js';
import { selectOutputs } from '../select-outputs.js';
import { CallRecorder, type CallStatistics } from '../statistics.js';
import { VERSION } from '../version.js';
import { type AuthOptions, Authorization } from './authorization.js';
import { type IncomingCall, OpenCall } from './call-context.js';
import { ExchangeServer } from './exchange-calls.js';
import { serveSession, serveUnary } from './grpc-calls.js';

const MAX_LOGGED_ID_LENGTH = 200;

/** How a call ended. */
export type Outcome<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: CommError };

/** What the servicer offers to whatever brings calls to it. Neither ever rejects. */
export interface Answers {
  readonly maxMessageLength: number;
  /** Lets a call in, or not: what is not let in is answered so, and nothing of it need be kept. */
  open(incoming: IncomingCall): OpenCall;
  unary(message: Uint8Array, opened: OpenCall): Promise<Outcome<EncodedMessage>>;
  /** `send` waits until there is room for more. */
  session(
    messages: AsyncIterable<Uint8Array>,
    opened: OpenCall,
    send: (message: EncodedMessage) => Promise<void> | undefined,
  ): Promise<Outcome<void>>;
}

export interface AsyncComputeServicerOptions {
  readonly computeFn: ComputeFunction;
  /** Told of every error that is no `CommError`, with its stack; the caller only sees `INTERNAL`. Default: `console`. */
  readonly logger?: Logger;
  /** Who may call. Default: everyone. */
  readonly auth?: AuthOptions;
  /** Refuses a call, by throwing, for what it sends along. Default: none is refused. */
  readonly assertMetadata?: (metadata: Readonly<Record<string, string>>) => void;
  /** The largest response, in bytes, and what `GetServiceInfo` says is the largest message. Default: 64 MiB. */
  readonly maxMessageLength?: number;
  readonly limits?: ExchangeLimitOptions;
}

/** What the calls on Exchanges may take. */
export interface ExchangeLimitOptions {
  /** Calls that may be open on one Exchange. Default 1024; further ones fail with `RESOURCE_EXHAUSTED` (`TOO_MANY_CALLS`). */
  readonly maxCallsPerConnection?: number;
  /**
   * Bytes of requests that may be held at once, over all Exchanges, from their first byte to their answer. Default 1 GiB;
   * further ones fail with `RESOURCE_EXHAUSTED` (`TOO_MANY_BYTES`). A single request may always have `maxMessageLength`.
   */
  readonly maxRequestBytes?: number;
  /**
   * Milliseconds without a sign of a client that has calls open, until it is asked for one; 20 seconds later it is given
   * up. Default 30000; `Infinity` for never.
   */
  readonly keepAliveMs?: number;
  /** Milliseconds in which something must come of a request that has come in part. Default 30000; `Infinity`: never. */
  readonly slowPeerTimeoutMs?: number;
}

const DEFAULT_MAX_REQUEST_BYTES = 1024 ** 3;
/** How long a client may take to give a sign when it is asked for one. */
const KEEP_ALIVE_TIMEOUT_MS = 20_000;

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
  readonly #authorization: Authorization | undefined;
  readonly #assertMetadata: AsyncComputeServicerOptions['assertMetadata'];
  readonly #exchange: ExchangeServer;
  readonly #calls = new CallRecorder();
  readonly #open = new NumberMap<OpenCall>();
  #begun = 0;
  readonly #whenIdle: (() => void)[] = [];

  constructor(options: AsyncComputeServicerOptions) {
    const { computeFn, logger = console, maxMessageLength = DEFAULT_MAX_MESSAGE_BYTES } = options;
    const limits = exchangeLimits(options.limits ?? {}, maxMessageLength);
    if (typeof computeFn?.compute !== 'function') {
      throw new CommError(
        'INVALID_ARGUMENT',
        'computeFn must be a compute function, an object with a method compute()',
      );
    }
    this.#computeFn = computeFn;
    this.#logger = logger;
    this.#maxMessageLength = maxMessageLength;
    const answers: Answers = {
      maxMessageLength,
      open: (incoming) => this.#admit(new OpenCall(incoming)),
      unary: (message, opened) => this.#tracked(opened, () => this.#compute(message, opened)),
      session: (messages, opened, send) => this.#tracked(opened, () => this.#stream(messages, opened, send)),
    };
    this.#assertMetadata = options.assertMetadata;
    this.#authorization = options.auth && new Authorization(options.auth, logger);
    this.#exchange = new ExchangeServer(answers, limits);
    this.implementation = {
      Compute: serveUnary('compute', answers, answers.unary),
      ComputeStream: serveSession(answers),
      GetServiceInfo: serveUnary('info', answers, (_, opened) => this.#tracked(opened, () => this.#serviceInfo())),
      Exchange: this.#exchange.serve,
    };
  }

  getStatistics(): CallStatistics {
    return this.#calls.read();
  }

  /** Answers every call that is under way with an error, and aborts its signal, so that well-behaved work ends now. */
  abortAll(reason: CommError): void {
    for (const [, opened] of this.#open.entries()) opened.abort(reason);
  }

  /** Resolves when no call is under way: its work has ended, and its answer has been sent. */
  async idle(): Promise<void> {
    if (this.#open.size > 0) await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
  }

  /** Lets no further call begin; those that are under way go on. */
  drain(): void {
    this.#exchange.drain();
  }

  async #compute(message: Uint8Array, opened: OpenCall): Promise<EncodedMessage> {
    const arrivedMs = performance.now();
    const decoded = this.#decode(message, opened);
    if (decoded.ready) await decoded.ready;
    const { request, outputEncoding } = decoded;
    const response = await this.#computeFn.compute(request, opened.context());
    const selected = selectOutputs(response, request, 'all');
    const encode = outputEncoding === 0 ? undefined : await encodeOutputs(selected, outputEncoding);
    return this.#encode(selected, opened, arrivedMs, encode);
  }

  async #stream(
    messages: AsyncIterable<Uint8Array>,
    opened: OpenCall,
    send: (message: EncodedMessage) => Promise<void> | undefined,
  ): Promise<void> {
    let arrivedMs = performance.now();
    let outputEncoding = 0;
    const requests = mapAsync(messages, async (message) => {
      arrivedMs = performance.now();
      const decoded = this.#decode(message, opened);
      if (decoded.ready) await decoded.ready;
      outputEncoding = decoded.outputEncoding;
      return decoded.request;
    });
    // A session's id is that of its first request, which is read before the compute function is told of the session.
    const first = await requests.next();
    if (first.done) return;
    const all = startWith(first.value, requests);
    const context = opened.context();
    // A stream of its own may read requests ahead: only it knows which one a response answers, and selects outputs itself.
    const responses = this.#computeFn.stream?.(all, context) ?? this.#computeEach(all, context);
    for await (const response of responses) {
      if (opened.abortReason) throw opened.abortReason;
      const encode = outputEncoding === 0 ? undefined : await encodeOutputs(response, outputEncoding);
      await send(this.#encode(response, opened, arrivedMs, encode));
    }
  }

  async *#computeEach(requests: AsyncIterable<ComputeRequest>, context: CallContext): AsyncIterable<ComputeResponse> {
    for await (const request of requests) {
      yield selectOutputs(await this.#computeFn.compute(request, context), request, 'all');
    }
  }

  #decode(bytes: Uint8Array, opened: OpenCall): DecodedRequest {
    assertMessageLength('request', bytes, this.#maxMessageLength);
    const decoded = decodeRequest(this.#calls.received(bytes), { decode: decodeUpTo(this.#maxMessageLength) });
    if (decoded.requestId) opened.requestId = decoded.requestId;
    return decoded;
  }

  #encode(
    response: ComputeResponse,
    { requestId, incoming }: OpenCall,
    arrivedMs: number,
    encode: EncodeTensor | undefined,
  ): EncodedMessage {
    const serverMs = performance.now() - arrivedMs;
    const message = encodeResponse(response, requestId, serverMs, { base: incoming.base, ...(encode && { encode }) });
    assertMessageLength('response', message, Math.min(this.#maxMessageLength, incoming.maxResponseBytes));
    return this.#calls.sent(message);
  }

  async #serviceInfo(): Promise<Uint8Array> {
    const own: ServiceInfo = (await this.#computeFn.info?.()) ?? { name: '', version: '', models: [] };
    const named = { ...own, name: own.name || '@splitlearn/comm', version: own.version || VERSION };
    return encodeServiceInfo({ ...named, maxMessageBytes: this.#maxMessageLength, encodings: supportedEncodings() });
  }

  /** Counts a call, and turns whatever comes of it into an outcome. */
  #tracked<T>(opened: OpenCall, work: () => Promise<T>): Promise<Outcome<T>> {
    const { admission } = opened;
    const answer = admission
      ? async () => {
          if (admission instanceof CommError) throw admission;
          await admission;
          return work();
        }
      : work;
    const finish = this.#calls.begin();
    const number = this.#begun++;
    this.#open.set(number, opened);
    return new Promise((resolve) => {
      const fail = (thrown: unknown) => {
        if (settled) return;
        settled = true;
        const error = this.#explain(thrown, opened);
        finish(error.code);
        opened.answered();
        resolve({ ok: false, error });
      };
      let settled = false;
      opened.onAbort = fail;
      answer().then(
        (value) => {
          if (!settled) {
            settled = true;
            finish();
            opened.answered();
            resolve({ ok: true, value });
          }
          opened.whenOver(() => this.#close(number));
        },
        (thrown: unknown) => {
          fail(thrown);
          opened.whenOver(() => this.#close(number));
        },
      );
    });
  }

  #admit(opened: OpenCall): OpenCall {
    try {
      this.#assertMetadata?.(opened.incoming.metadata);
      const asked = this.#authorization?.check(opened.incoming);
      // Nobody may be left to wait for it when it says no.
      asked?.catch(() => {});
      opened.admission = asked ?? undefined;
    } catch (error) {
      opened.admission = CommError.from(error);
    }
    return opened;
  }

  #close(number: number): void {
    this.#open.delete(number);
    if (this.#open.size === 0) for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  /** What the caller is told of an error. What it is not told is logged. */
  #explain(error: unknown, { requestId, abortReason }: OpenCall): CommError {
    const known = knownError(error);
    if (known) return known;
    // Work that was told to stop may fail in ways of its own; what it means to the caller is why it was told to.
    if (abortReason) return abortReason;
    const { stack, message } = errorToPlain(error);
    // The id is the caller's, and must not be able to write lines of its own into the log.
    const id = requestId.replace(/[^\x20-\x7e]/g, '?').slice(0, MAX_LOGGED_ID_LENGTH);
    this.#logger.error(`request ${id} failed: ${stack ?? message}`);
    const explanation = `the compute function failed; the server's log has the error of request ${id}`;
    return new CommError('INTERNAL', explanation, { cause: error });
  }
}

/** The outputs as the caller would like them; one that this version does not know is taken for raw. */
function encodeOutputs({ outputs }: ComputeResponse, outputEncoding: number): Promise<EncodeTensor | undefined> {
  const encoding = encodingFromWire(outputEncoding) ?? 'raw';
  const known = supportedEncodings().includes(encoding) ? encoding : 'raw';
  return encodeAhead(outputs ?? {}, () => known);
}

/** @throws CommError `INVALID_ARGUMENT`, naming the option, for a limit that is none. */
function exchangeLimits(options: ExchangeLimitOptions, maxMessageLength: number): ExchangeLimits {
  const { maxCallsPerConnection = 1024, maxRequestBytes = DEFAULT_MAX_REQUEST_BYTES } = options;
  const { keepAliveMs = 30_000, slowPeerTimeoutMs = 30_000 } = options;
  assertInteger('maxCallsPerConnection', maxCallsPerConnection, 1, 2 ** 32 - 1);
  assertInteger('maxRequestBytes', maxRequestBytes, 1);
  assertMs('keepAliveMs', keepAliveMs);
  assertMs('slowPeerTimeoutMs', slowPeerTimeoutMs);
  return {
    maxCalls: maxCallsPerConnection,
    maxRequestBytes: Math.max(maxRequestBytes, maxMessageLength),
    slowPeerTimeoutMs,
    keepAlive: { idleMs: keepAliveMs, timeoutMs: KEEP_ALIVE_TIMEOUT_MS },
  };
}
