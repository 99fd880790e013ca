import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { splitlearn } from '#proto';
import { deferred } from '../../test/support/deferred.js';
import { FakeServerCall, settle } from '../../test/support/fake-exchange-calls.js';
import type { EncodedMessage } from '../codec/wire.js';
import { CommError } from '../errors.js';
import type { Answers, Outcome } from '../server/async-compute-servicer.js';
import { OpenCall } from '../server/call-context.js';
import { ExchangeServer } from '../server/exchange-calls.js';
import { type ExchangeLimits, ServerExchange } from './server-exchange.js';
import { MESSAGE_OVERHEAD_BYTES } from './session-window.js';

import v1 = splitlearn.comm.v1;

const CANCELLED = 1;
const INVALID_ARGUMENT = 3;
const DEADLINE_EXCEEDED = 4;
const RESOURCE_EXHAUSTED = 8;
const INTERNAL = 13;
const UNAVAILABLE = 14;
const UNAUTHENTICATED = 16;

const MAX_MESSAGE_BYTES = 100_000;
const keepAlive = { idleMs: Number.POSITIVE_INFINITY, timeoutMs: 1_000 };

function encoded(content: Uint8Array): EncodedMessage {
  const { byteLength } = content;
  return { byteLength, writeTo: (target, offset) => target.set(content, offset), toParts: () => [content] };
}

/** A servicer that sends back what it gets. */
const echo: Answers = {
  maxMessageLength: MAX_MESSAGE_BYTES,
  open: (incoming) => new OpenCall(incoming),
  async unary(message, opened) {
    opened.answered();
    return { ok: true, value: encoded(message) };
  },
  async session(messages, opened, send) {
    try {
      for await (const message of messages) await send(encoded(message));
      opened.answered();
      return { ok: true, value: undefined };
    } catch (error) {
      return { ok: false, error: CommError.from(error) };
    }
  },
};

interface Setup {
  readonly call: FakeServerCall;
  readonly budget: { bytes: number };
  readonly limits: ExchangeLimits;
  readonly exchange: ServerExchange;
  /** How often the connection has been said to be over. */
  readonly over: () => number;
}

function serve(answers: Partial<Answers> = {}, given: Partial<ExchangeLimits> = {}): Setup {
  const limits = { maxCalls: 4, maxRequestBytes: 1_000_000, slowPeerTimeoutMs: 30_000, keepAlive, ...given };
  const call = new FakeServerCall({ maxMessageBytes: MAX_MESSAGE_BYTES });
  const budget = { bytes: limits.maxRequestBytes };
  let overs = 0;
  const exchange = new ServerExchange(call.asGrpc, { ...echo, ...answers }, limits, budget, () => overs++);
  return { call, budget, limits, exchange, over: () => overs };
}

/** Answers when it is told to, and keeps what it was told of the calls. */
class Gate {
  readonly begun: {
    readonly message: Buffer;
    readonly opened: OpenCall;
    readonly answer: (outcome: Outcome<EncodedMessage>) => void;
  }[] = [];

  readonly unary: Answers['unary'] = (message, opened) => {
    const { promise, resolve } = deferred<Outcome<EncodedMessage>>();
    this.begun.push({ message: Buffer.from(message), opened, answer: resolve });
    return promise;
  };
}

const begin = { timeoutMs: 60_000 };
const bytesOf = (length: number, value = 7) => Buffer.alloc(length, value);
const textOf = (length: number, value = 7) => bytesOf(length, value).toString('latin1');

/** One more call, which must work. */
async function expectToWork({ call }: Setup, number: number): Promise<void> {
  call.takeFrames();
  call.receive({ call: number, begin, end: true, piece: bytesOf(3) });
  await settle();
  expect(call.takeFrames()).toEqual([{ call: number, end: true, piece: textOf(3) }]);
  expect(call.failures).toEqual([]);
}

afterEach(() => {
  vi.useRealTimers();
});

describe('a call', () => {
  it('is answered, in one piece or in several', async () => {
    const { call, budget, limits } = serve();
    call.receive(
      { call: 1, begin, messageBytes: 25_000, piece: bytesOf(15_000) },
      { call: 2, begin, end: true, piece: bytesOf(0) },
      { call: 1, end: true, piece: bytesOf(10_000) },
    );
    expect(budget.bytes).toBe(limits.maxRequestBytes - 25_000);
    await settle();
    expect(call.takeFrames()).toEqual([
      { call: 2, end: true, piece: '' },
      { call: 1, end: true, piece: textOf(25_000) },
    ]);
    expect(budget.bytes).toBe(limits.maxRequestBytes);
  });

  it('is answered whose begin comes behind that of a later one, as a large request gives way to a small one', async () => {
    const { call } = serve();
    call.receive({ call: 2, begin, end: true, piece: bytesOf(2) }, { call: 1, begin, end: true, piece: bytesOf(1) });
    await settle();
    expect(call.takeFrames().map((frame) => frame.call)).toEqual([2, 1]);
  });

  it('knows what its caller said', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: 1_000 });
    const gate = new Gate();
    const { call } = serve(gate);
    call.receive({ call: 1, begin: { timeoutMs: 50, metadata: { 'x-tenant': 'a' } }, end: true, piece: bytesOf(1) });
    call.receive({ call: 2, begin: {}, end: true, piece: bytesOf(1) });
    const [first, second] = gate.begun;
    expect(first?.opened.incoming).toEqual({
      deadlineMs: 1_050,
      metadata: { 'x-tenant': 'a' },
      peer: '10.0.0.7:51234',
      method: 'compute',
      base: 0,
      maxResponseBytes: MAX_MESSAGE_BYTES,
    });
    expect(second?.opened.incoming.deadlineMs).toBe(Number.POSITIVE_INFINITY);
  });

  it('leaves no timer behind but the one for all, which ends', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    const { call } = serve();
    call.receive({ call: 1, begin, end: true, piece: bytesOf(1) });
    expect(vi.getTimerCount()).toBe(1);
    await settle();
    expect(call.takeFrames()).toHaveLength(1);
    vi.advanceTimersByTime(60_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('is begun once, however many messages come for it', async () => {
    const gate = new Gate();
    const { call, budget, limits } = serve(gate);
    call.receive({ call: 1, begin, piece: bytesOf(2) }, { call: 1, piece: bytesOf(3) }, { call: 1, end: true });
    expect(gate.begun.map(({ message }) => message.byteLength)).toEqual([2]);
    expect(budget.bytes).toBe(limits.maxRequestBytes - 2);
  });

  it('that fails has its status, with reason and when to try again', async () => {
    const error = new CommError('UNAVAILABLE', 'later', { reason: 'BUSY', retryAfterMs: 7 });
    const setup = serve({ unary: async () => ({ ok: false, error }) });
    setup.call.receive({ call: 1, begin, end: true, piece: bytesOf(1) });
    await settle();
    expect(setup.call.takeFrames()).toEqual([
      { call: 1, status: { code: UNAVAILABLE, message: 'later', reason: 'BUSY', retryAfterMs: 7 } },
    ]);
    expect(setup.budget.bytes).toBe(setup.limits.maxRequestBytes);
  });

  it('whose answer cannot be written has an error, and takes nobody along', async () => {
    const fail = () => {
      throw new CommError('FAILED_PRECONDITION', 'moved', { reason: 'TENSOR_MOVED' });
    };
    for (const byteLength of [10, 50_000]) {
      const setup = serve({ unary: async () => ({ ok: true, value: { byteLength, writeTo: fail, toParts: fail } }) });
      setup.call.receive({ call: 1, begin, end: true, piece: bytesOf(1) });
      await settle();
      expect(setup.call.takeFrames()).toMatchObject([{ call: 1, status: { reason: 'TENSOR_MOVED' } }]);
      expect(setup.budget.bytes).toBe(setup.limits.maxRequestBytes);
    }
  });

  it('is aborted when its caller takes it back, and nothing of its answer is sent', async () => {
    for (const [why, code] of [
      [CANCELLED, 'CANCELLED'],
      [DEADLINE_EXCEEDED, 'DEADLINE_EXCEEDED'],
    ] as const) {
      const gate = new Gate();
      const setup = serve(gate);
      setup.call.receive({ call: 1, begin, end: true, piece: bytesOf(1) }, { call: 1, cancel: why });
      expect(gate.begun[0]?.opened.signal.reason).toMatchObject({ code });
      expect(setup.budget.bytes).toBe(setup.limits.maxRequestBytes);
      gate.begun[0]?.answer({ ok: true, value: encoded(bytesOf(5)) });
      await settle();
      expect(setup.call.takeFrames()).toEqual([]);
    }
  });

  it('that is taken back while its answer goes out gets no more of it', async () => {
    const setup = serve({
      maxMessageLength: 8_000_000,
      unary: async () => ({ ok: true, value: encoded(bytesOf(8_000_000)) }),
    });
    setup.call.receive({ call: 1, begin, end: true, piece: bytesOf(1) });
    // The server may send all of it.
    setup.call.receive({ connection: { bulkRight: v1.BulkRight.BULK_RIGHT_PASSED } });
    const takeBytes = () => setup.call.takeFrames().reduce((sum, { piece = '' }) => sum + piece.length, 0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(takeBytes()).toBeGreaterThan(0);
    setup.call.receive({ call: 1, cancel: CANCELLED });
    for (let turn = 0; turn < 10; turn++) await settle();
    expect(takeBytes()).toBeLessThan(1_000_000);
  });

  it('whose time is up is answered so, be it computed or still on its way here', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
    const gate = new Gate();
    const setup = serve({
      unary: (message, opened) => {
        const outcome = gate.unary(message, opened);
        opened.onAbort = (error) => gate.begun[0]?.answer({ ok: false, error });
        return outcome;
      },
    });
    setup.call.receive({ call: 1, begin: { timeoutMs: 10 }, end: true, piece: bytesOf(1) });
    setup.call.receive({ call: 2, begin: { timeoutMs: 20 }, messageBytes: 1_000, piece: bytesOf(1) });
    await vi.advanceTimersByTimeAsync(10);
    await settle();
    expect(setup.call.takeFrames()).toMatchObject([{ call: 1, status: { code: DEADLINE_EXCEEDED } }]);
    await vi.advanceTimersByTimeAsync(10);
    await settle();
    expect(setup.call.takeFrames()).toMatchObject([{ call: 2, status: { code: DEADLINE_EXCEEDED } }]);
    expect(setup.budget.bytes).toBe(setup.limits.maxRequestBytes);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a session', () => {
  it('answers as it is asked, and ends', async () => {
    const { call, budget, limits } = serve();
    call.receive({ call: 1, begin: { session: true } }, { call: 1, piece: bytesOf(2) }, { call: 1, piece: bytesOf(0) });
    await settle();
    expect(call.takeFrames()).toEqual([
      { call: 1, piece: textOf(2) },
      { call: 1, piece: '' },
    ]);
    call.receive({ call: 1, messageBytes: 5, piece: bytesOf(3) }, { call: 1, end: true, piece: bytesOf(2) });
    await settle();
    expect(call.takeFrames()).toEqual([
      { call: 1, piece: textOf(5) },
      { call: 1, end: true },
    ]);
    expect(budget.bytes).toBe(limits.maxRequestBytes);
  });

  it('of which half a message comes, and then nothing, is given up with its memory', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    try {
      const { call, budget, limits } = serve({}, { slowPeerTimeoutMs: 1_000 });
      call.receive({ call: 1, begin: {}, messageBytes: 100_000, piece: bytesOf(5_000) });
      vi.advanceTimersByTime(1_000);
      call.receive({ call: 1, piece: bytesOf(5_000) });
      vi.advanceTimersByTime(1_000);
      expect(call.takeFrames()).toEqual([]);
      expect(budget.bytes).toBe(limits.maxRequestBytes - 100_000);
      call.receive({ call: 1, piece: bytesOf(10) });
      vi.advanceTimersByTime(1_000);
      await settle();
      expect(call.takeFrames()).toMatchObject([{ call: 1, status: { code: 4, reason: 'SLOW_PEER' } }]);
      expect(budget.bytes).toBe(limits.maxRequestBytes);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it('gives the bytes back that its reader has taken, and says so', async () => {
    const { call, budget, limits } = serve({
      async session(messages) {
        let count = 0;
        for await (const _ of messages) if (++count === 10) await new Promise(() => {});
        return { ok: true, value: undefined };
      },
    });
    call.receive({ call: 1, begin: { session: true } });
    for (let count = 0; count < 20; count++) call.receive({ call: 1, piece: bytesOf(30_000) });
    await settle();
    // In steps of at least 256 KiB.
    expect(call.takeFrames()).toEqual([{ call: 1, takenBytes: 9 * (30_000 + MESSAGE_OVERHEAD_BYTES) }]);
    expect(budget.bytes).toBe(limits.maxRequestBytes - 11 * (30_000 + MESSAGE_OVERHEAD_BYTES));
    call.receive({ call: 1, cancel: CANCELLED });
    expect(budget.bytes).toBe(limits.maxRequestBytes);
  });

  it('tells whoever reads its requests why it is over', async () => {
    for (const [why, code] of [
      [CANCELLED, 'CANCELLED'],
      [DEADLINE_EXCEEDED, 'DEADLINE_EXCEEDED'],
    ] as const) {
      const seen: unknown[] = [];
      const setup = serve({
        async session(messages) {
          try {
            for await (const message of messages) seen.push(message.byteLength);
          } catch (error) {
            seen.push(error);
          }
          return { ok: true, value: undefined };
        },
      });
      setup.call.receive({ call: 1, begin: { session: true } }, { call: 1, piece: bytesOf(1) });
      await settle();
      setup.call.receive({ call: 1, piece: bytesOf(2) }, { call: 1, cancel: why });
      await settle();
      expect(seen).toEqual([1, expect.objectContaining({ code })]);
      expect(setup.call.takeFrames()).toEqual([]);
    }
  });
});

describe('a call that is not let in', () => {
  const error = new CommError('UNAUTHENTICATED', 'who are you?');
  const refuse: Answers['open'] = (incoming) => Object.assign(new OpenCall(incoming), { admission: error });

  it('is told so, and nothing of it is kept', async () => {
    const gate = new Gate();
    const setup = serve({ ...gate, open: refuse });
    setup.call.receive(
      { call: 1, begin, messageBytes: 50, piece: bytesOf(20) },
      { call: 1, end: true, piece: bytesOf(30) },
      { call: 2, begin: { session: true } },
      { call: 2, piece: bytesOf(20) },
    );
    expect(setup.budget.bytes).toBe(setup.limits.maxRequestBytes);
    await settle();
    expect(setup.call.takeFrames()).toMatchObject([1, 2].map((call) => ({ call, status: { code: UNAUTHENTICATED } })));
    expect(gate.begun).toEqual([]);
  });
});

describe('a client that breaks the rules', () => {
  const refused = (call: number, code: number, more: object = {}) => ({
    call,
    status: expect.objectContaining({ code, ...more }),
  });

  it.each<[string, v1.IExchangeFrame[], unknown[]]>([
    [
      'frames of unknown calls',
      [
        { call: 9, piece: bytesOf(4) },
        { call: 9, end: true },
        { call: 8, cancel: 1 },
        { call: 8, takenBytes: 5 },
      ],
      [],
    ],
    ['frames of call 0', [{ begin, end: true, piece: bytesOf(4) }, { cancel: 1 }], []],
    [
      'a second begin',
      [
        { call: 1, begin },
        { call: 1, begin: { session: true } },
        { call: 1, end: true, piece: bytesOf(2) },
      ],
      [{ call: 1, end: true, piece: textOf(2) }],
    ],
    [
      'a second message',
      [
        { call: 1, begin, piece: bytesOf(2) },
        { call: 1, end: true, piece: bytesOf(3) },
      ],
      [{ call: 1, end: true, piece: textOf(2) }],
    ],
    ['the end before a message', [{ call: 1, begin, end: true }], [refused(1, INVALID_ARGUMENT)]],
    [
      'the end before a message is complete',
      [{ call: 1, begin, end: true, messageBytes: 5, piece: bytesOf(4) }],
      [refused(1, INVALID_ARGUMENT)],
    ],
    [
      'the end of a session before a message is complete',
      [
        { call: 1, begin: { session: true } },
        { call: 1, end: true, messageBytes: 5, piece: bytesOf(4) },
      ],
      [refused(1, INVALID_ARGUMENT)],
    ],
    [
      'more bytes than were announced',
      [
        { call: 1, begin, messageBytes: 5, piece: bytesOf(4) },
        { call: 1, end: true, piece: bytesOf(2) },
      ],
      [refused(1, INVALID_ARGUMENT)],
    ],
    [
      'cancelling twice, and a call that is over',
      [
        { call: 1, begin, messageBytes: 5, piece: bytesOf(4) },
        { call: 1, cancel: 1 },
        { call: 1, cancel: 1 },
        { call: 1, end: true, piece: bytesOf(1) },
      ],
      [],
    ],
    [
      'a status, and an end without call',
      [{ call: 1, status: { code: 5 } }, { end: true }, { status: { code: 5 } }],
      [],
    ],
    [
      'bytes taken that were never sent',
      [
        { call: 1, begin: { session: true } },
        { call: 1, takenBytes: 2 ** 50 },
        { call: 1, end: true },
      ],
      [{ call: 1, end: true }],
    ],
    [
      'a pass of the right that it has not',
      [
        { connection: { bulkRight: v1.BulkRight.BULK_RIGHT_PASSED } },
        { connection: { bulkRight: v1.BulkRight.BULK_RIGHT_PASSED, receivedBytes: 2 ** 50 } },
      ],
      [],
    ],
    ['an unknown bulk right', [{ connection: { bulkRight: 9 as v1.BulkRight } }], []],
  ])('by %s hurts no other call', async (_, frames, answers) => {
    const setup = serve();
    setup.call.receive(...frames);
    await settle();
    expect(setup.call.takeFrames()).toEqual(answers);
    expect(setup.budget.bytes).toBe(setup.limits.maxRequestBytes);
    await expectToWork(setup, 20);
  });

  it('by a message beyond the limit is told both sizes, and nothing is allocated', async () => {
    const setup = serve();
    const before = process.memoryUsage().arrayBuffers;
    for (let call = 1; call <= 50; call++) {
      setup.call.receive({ call, begin, messageBytes: 2 ** 40 + call, piece: bytesOf(10) });
      setup.call.receive({ call, piece: bytesOf(10) });
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10_000_000);
    await settle();
    const frames = setup.call.takeFrames();
    expect(frames).toHaveLength(50);
    expect(frames[0]).toEqual(
      refused(1, RESOURCE_EXHAUSTED, {
        reason: 'MESSAGE_TOO_LARGE',
        message: expect.stringMatching(`${2 ** 40 + 1} bytes.*${MAX_MESSAGE_BYTES}`),
      }),
    );
    expect(setup.budget.bytes).toBe(setup.limits.maxRequestBytes);
    await expectToWork(setup, 100);
  });

  it('by more calls than it may have is refused those, until one has ended', async () => {
    const gate = new Gate();
    const setup = serve(gate, { maxCalls: 2 });
    for (const call of [1, 2, 3]) setup.call.receive({ call, begin, end: true, piece: bytesOf(1) });
    await settle();
    expect(setup.call.takeFrames()).toEqual([
      refused(3, RESOURCE_EXHAUSTED, { reason: 'TOO_MANY_CALLS', retryAfterMs: 100 }),
    ]);
    expect(gate.begun).toHaveLength(2);
    gate.begun[0]?.answer({ ok: true, value: encoded(bytesOf(1)) });
    await settle();
    setup.call.receive({ call: 4, begin, end: true, piece: bytesOf(4) });
    expect(gate.begun).toHaveLength(3);
  });

  it('by more bytes than the server holds is refused those, but never one message by itself', async () => {
    const gate = new Gate();
    const setup = serve(gate, { maxRequestBytes: 50 });
    setup.call.receive({ call: 1, begin, end: true, piece: bytesOf(60) });
    setup.call.receive({ call: 2, begin, end: true, piece: bytesOf(1) });
    await settle();
    expect(setup.call.takeFrames()).toEqual([
      refused(2, RESOURCE_EXHAUSTED, { reason: 'TOO_MANY_BYTES', retryAfterMs: 200 }),
    ]);
    gate.begun[0]?.answer({ ok: true, value: encoded(bytesOf(1)) });
    await settle();
    expect(setup.budget.bytes).toBe(50);
    setup.call.receive(
      { call: 3, begin, end: true, piece: bytesOf(30) },
      { call: 4, begin, end: true, piece: bytesOf(20) },
    );
    await settle();
    expect(gate.begun).toHaveLength(3);
  });

  it('by what is no frame loses the connection, and no other', async () => {
    const gate = new Gate();
    const setup = serve(gate);
    setup.call.receive({ call: 1, begin, end: true, piece: bytesOf(1) });
    setup.call.emit('data', Buffer.alloc(20, 0xff));
    expect(setup.call.failures).toMatchObject([{ code: INTERNAL }]);
    expect(gate.begun[0]?.opened.signal.reason).toMatchObject({ code: 'CANCELLED' });
    // What comes before the stream is closed is not looked at any more.
    setup.call.emit('data', Buffer.alloc(20, 0xff));
    setup.call.receive(
      { call: 2, begin, end: true, piece: bytesOf(1) },
      { call: 3, begin, messageBytes: 100, piece: bytesOf(1) },
    );
    await settle();
    expect(gate.begun).toHaveLength(1);
    expect(setup.call.failures).toHaveLength(1);
    expect(setup.budget.bytes).toBe(setup.limits.maxRequestBytes);
    setup.call.lose();
    expect(setup.over()).toBeGreaterThan(0);
  });
});

describe('a connection', () => {
  it('says first what the server takes', () => {
    const { call } = serve();
    const [metadata] = call.sentMetadata;
    const [bytes] = metadata?.get('splitlearn-hello-bin') ?? [];
    expect(v1.Hello.toObject(v1.Hello.decode(bytes as Buffer), { longs: Number })).toMatchObject({
      maxMessageBytes: MAX_MESSAGE_BYTES,
      maxCalls: 4,
    });
  });

  it('answers a ping', () => {
    const { call } = serve();
    call.receive({ connection: { ping: true } });
    expect(call.frames).toEqual([{ connection: { pong: true } }]);
  });

  it('that is lost ends its calls, and gives back what they held', async () => {
    const gate = new Gate();
    const setup = serve(gate);
    const { call, budget, limits } = setup;
    call.receive(
      { call: 1, begin, end: true, piece: bytesOf(10) },
      { call: 2, begin, messageBytes: 100, piece: bytesOf(10) },
      { call: 3, begin: { session: true } },
      { call: 3, piece: bytesOf(50) },
    );
    expect(budget.bytes).toBe(limits.maxRequestBytes - 160 - MESSAGE_OVERHEAD_BYTES);
    call.lose();
    expect(budget.bytes).toBe(limits.maxRequestBytes);
    expect(gate.begun[0]?.opened.signal.reason).toMatchObject({ code: 'CANCELLED' });
    gate.begun[0]?.answer({ ok: true, value: encoded(bytesOf(1)) });
    await settle();
    expect(call.takeFrames()).toEqual([]);
  });

  it('that drains begins no further call, finishes those under way, and ends', async () => {
    const gate = new Gate();
    const { call, exchange } = serve(gate);
    call.receive({ call: 1, begin, end: true, piece: bytesOf(10) });
    exchange.drain();
    exchange.drain();
    expect(call.frames.splice(0)).toEqual([{ connection: { draining: true } }]);
    call.receive({ call: 2, begin, end: true, piece: bytesOf(10) });
    await settle();
    expect(call.takeFrames()).toMatchObject([{ call: 2, status: { code: UNAVAILABLE, reason: 'STOPPING' } }]);
    expect(call.writableEnded).toBe(false);
    gate.begun[0]?.answer({ ok: true, value: encoded(bytesOf(20_000)) });
    await settle();
    expect(call.takeFrames()).toEqual([{ call: 1, end: true, piece: textOf(20_000) }]);
    expect(call.writableEnded).toBe(true);
  });

  it('without calls ends at once when it drains, or when its client ends it', async () => {
    for (const end of [({ exchange }: Setup) => exchange.drain(), ({ call }: Setup) => call.emit('end')]) {
      const setup = serve();
      end(setup);
      await settle();
      expect(setup.call.writableEnded).toBe(true);
      expect(setup.call.failures).toEqual([]);
    }
  });

  it('whose client gives no sign is given up, with its calls', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const gate = new Gate();
    const setup = serve(gate, { keepAlive: { idleMs: 1_000, timeoutMs: 500 } });
    setup.call.receive({ call: 1, begin, end: true, piece: bytesOf(10) });
    vi.advanceTimersByTime(1_000);
    expect(setup.call.frames.splice(0)).toEqual([{ connection: { ping: true } }]);
    setup.call.receive({ connection: { pong: true } });
    vi.advanceTimersByTime(500 + 1_000);
    expect(setup.call.frames.splice(0)).toEqual([{ connection: { ping: true } }]);
    vi.advanceTimersByTime(500);
    expect(setup.call.failures).toMatchObject([{ code: UNAVAILABLE }]);
    expect(gate.begun[0]?.opened.signal.aborted).toBe(true);
    expect(setup.budget.bytes).toBe(setup.limits.maxRequestBytes);
  });
});

describe('an exchange server', () => {
  const limits = { maxCalls: 4, maxRequestBytes: 1_000, slowPeerTimeoutMs: 30_000, keepAlive };

  it('lets all connections drain, also those that come later', async () => {
    const server = new ExchangeServer(echo, limits);
    const [early, late] = [new FakeServerCall(), new FakeServerCall()];
    server.serve(early.asGrpc);
    server.drain();
    server.serve(late.asGrpc);
    await settle();
    expect([early.writableEnded, late.writableEnded]).toEqual([true, true]);
  });

  it('has one budget for all of them', async () => {
    const gate = new Gate();
    const server = new ExchangeServer({ ...echo, ...gate }, limits);
    const [first, second] = [new FakeServerCall(), new FakeServerCall()];
    for (const call of [first, second]) {
      server.serve(call.asGrpc);
      call.receive({ call: 1, begin, end: true, piece: bytesOf(600) });
    }
    await settle();
    expect(first.takeFrames()).toEqual([]);
    expect(second.takeFrames()).toMatchObject([{ call: 1, status: { reason: 'TOO_MANY_BYTES' } }]);
    first.lose();
    second.receive({ call: 2, begin, end: true, piece: bytesOf(600) });
    expect(gate.begun).toHaveLength(2);
  });

  it('passes over a call whose client has gone already', async () => {
    const server = new ExchangeServer(echo, limits);
    const call = new FakeServerCall();
    call.cancelled = true;
    server.serve(call.asGrpc);
    call.receive({ call: 1, begin, end: true, piece: bytesOf(1) });
    server.drain();
    await settle();
    expect(call.frames).toEqual([]);
    expect(call.failures).toEqual([]);
  });
});

it('the budget is whole again after whatever calls do', { timeout: 60_000 }, async () => {
  const number = fc.integer({ min: 1, max: 6 });
  const size = fc.oneof(fc.nat(30), fc.nat(400_000));
  const step = fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('begin' as const),
        call: number,
        session: fc.boolean(),
        size,
        announced: size,
      }),
    },
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('piece' as const),
        call: number,
        size,
        announced: size,
        end: fc.boolean(),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constantFrom('cancel' as const, 'answer' as const, 'fail' as const, 'settle' as const),
        call: number,
      }),
    },
  );
  const ending = fc.constantFrom('cancel' as const, 'lose' as const, 'garbage' as const);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40, size: 'max' }), ending, async (steps, ends) => {
      const gate = new Gate();
      const setup = serve({ ...gate, maxMessageLength: 300_000 }, { maxRequestBytes: 500_000 });
      const { call, budget, limits } = setup;
      let outstanding = 0;
      let round = 0;
      for (const one of steps) {
        if (one.kind === 'begin') {
          round += 10;
          const { session, announced } = one;
          call.receive({
            call: round + one.call,
            begin: { session, timeoutMs: 60_000 },
            messageBytes: announced,
            piece: bytesOf(Math.min(one.size, 1_000)),
          });
        } else if (one.kind === 'piece') {
          call.receive({
            call: round + one.call,
            messageBytes: one.announced,
            piece: bytesOf(Math.min(one.size, 2_000)),
            end: one.end,
          });
        } else if (one.kind === 'cancel') call.receive({ call: round + one.call, cancel: 1 });
        else if (one.kind === 'settle') await settle();
        else {
          const outcome: Outcome<EncodedMessage> =
            one.kind === 'answer'
              ? { ok: true, value: encoded(bytesOf(20_000)) }
              : { ok: false, error: new CommError('NOT_FOUND', '') };
          gate.begun.shift()?.answer(outcome);
          await settle();
        }
        expect(budget.bytes).toBeLessThanOrEqual(limits.maxRequestBytes);
        outstanding = Math.max(outstanding, limits.maxRequestBytes - budget.bytes);
      }
      expect(outstanding).toBeLessThanOrEqual(limits.maxRequestBytes);
      if (ends === 'lose') call.lose();
      else if (ends === 'garbage') call.emit('data', Buffer.alloc(20, 0xff));
      else for (let taken = 1; taken <= round + 10; taken++) call.receive({ call: taken, cancel: 1 });
      expect(budget.bytes).toBe(limits.maxRequestBytes);
      for (const { answer } of gate.begun) answer({ ok: true, value: encoded(bytesOf(1)) });
      await settle();
      expect(budget.bytes).toBe(limits.maxRequestBytes);
      if (ends !== 'cancel') return;
      // Answers may have used up what may be on the way without the right.
      call.receive({ connection: { receivedBytes: 2 ** 40 } });
      await settle();
      call.takeFrames();
      call.receive({ call: round + 20, begin: { session: true } }, { call: round + 20, end: true, piece: bytesOf(3) });
      await settle();
      expect(call.takeFrames()).toEqual([
        { call: round + 20, piece: textOf(3) },
        { call: round + 20, end: true },
      ]);
    }),
    { numRuns: 60 },
  );
});
