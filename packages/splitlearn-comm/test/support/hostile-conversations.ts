import { gzipSync } from 'node:zlib';
import { splitlearn } from '#proto';
import { Random } from '../soak/random.mjs';
import { frameBytes, prefixed } from './exchange-frames.js';
import { END_HEADERS, FRAME, frame, PREFACE } from './http2-peer.js';

import v1 = splitlearn.comm.v1;

// What hostile, broken and unlucky peers say to a server, as bytes, drawn from a seed.

const SERVICE = '/splitlearn.comm.v1.ComputeService';
const [CONTINUATION, PRIORITY, PUSH_PROMISE] = [9, 2, 5];
const [END_STREAM, ACK, PADDED] = [1, 1, 8];
const KIB = 1024;
const MIB = KIB * KIB;
/** As large as a varint can be: beyond 2^53, and -1 to who takes it for a signed number. */
const HUGE = [2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, 2 ** 53, 2 ** 63, 2 ** 64 - 2 ** 11];

/** A conversation, of which only one side matters. */
export interface Conversation {
  readonly kind: string;
  /** What the peer writes, one after the other. */
  readonly writes: readonly Buffer[];
  /** Whether it reads what it is answered. */
  readonly reads: boolean;
  /** How it ends: the peer goes, resets, ends its side, or stays silent until it is thrown out. */
  readonly ending: 'leaves' | 'resets' | 'ends' | 'stays';
}

/** HTTP/2 as it is written, without a thought for what is allowed. */
class Script {
  readonly parts: Buffer[] = [];
  #lastStream = -1;

  begin(): this {
    return this.bytes(Buffer.from(PREFACE)).frame(FRAME.settings, 0, 0);
  }

  bytes(bytes: Buffer): this {
    this.parts.push(bytes);
    return this;
  }

  frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): this {
    return this.bytes(frame(type, flags, stream, payload));
  }

  /** Opens a stream. */
  open(method: string, headers: Readonly<Record<string, string>> = {}): number {
    this.#lastStream += 2;
    this.frame(FRAME.headers, END_HEADERS, this.#lastStream, encodeHeaders({ ...callHeaders(method), ...headers }));
    return this.#lastStream;
  }

  data(stream: number, bytes: Uint8Array, flags = 0): this {
    const most = 16 * KIB;
    for (let at = 0; at + most < bytes.length; at += most)
      this.frame(FRAME.data, 0, stream, bytes.subarray(at, at + most));
    return this.frame(
      FRAME.data,
      flags,
      stream,
      bytes.subarray(Math.floor(Math.max(0, bytes.length - 1) / most) * most),
    );
  }

  joined(): Buffer {
    return Buffer.concat(this.parts);
  }
}

function callHeaders(method: string): Record<string, string> {
  const path = method.startsWith('/') ? method : `${SERVICE}/${method}`;
  return { ':method': 'POST', ':scheme': 'http', ':path': path, ':authority': 'x', 'content-type': 'application/grpc' };
}

/** As literals that nobody needs to remember (RFC 7541, 6.2.2). */
function encodeHeaders(headers: Readonly<Record<string, string>>): Buffer {
  const text = (value: string) => [encodeLength(value.length), Buffer.from(value, 'latin1')];
  return Buffer.concat(
    Object.entries(headers).flatMap(([name, value]) => [Buffer.of(0), ...text(name), ...text(value)]),
  );
}

/** RFC 7541, 5.1, with seven bits in the first byte. */
function encodeLength(length: number): Buffer {
  if (length < 127) return Buffer.of(length);
  const bytes = [127];
  let rest = length - 127;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128);
  return Buffer.from([...bytes, rest]);
}

const noisy = new Random(1);
const NOISE = Buffer.from(Array.from({ length: 64 * KIB }, () => noisy.between(0, 255)));

function noise(random: Random, most: number): Buffer {
  const start = random.between(0, NOISE.length - most);
  return NOISE.subarray(start, start + random.between(0, most));
}

const payloads = [16, 100, 3_000, 20_000, 200_000].map((bytes) => {
  const input: v1.ITensor = { name: 'x', dtype: v1.DType.DTYPE_UINT8, shape: [bytes], data: new Uint8Array(bytes) };
  return v1.ComputeRequest.encode({ requestId: 'hostile', inputs: [input] }).finish();
});
const bomb = gzipSync(Buffer.alloc(16 * MIB));

function request(random: Random): Uint8Array {
  // Most are small, as the time goes by with the bytes.
  return payloads[Math.min(...Array.from({ length: 3 }, () => random.between(0, payloads.length - 1)))] as Uint8Array;
}

const METHODS = ['Compute', 'ComputeStream', 'GetServiceInfo', 'Exchange'];
const HEALTH = ['/grpc.health.v1.Health/Check', '/grpc.health.v1.Health/Watch', '/nobody/Knows'];

/** Frames of an Exchange as a good client sends them. */
function goodFrames(random: Random): v1.IExchangeFrame[] {
  const frames: v1.IExchangeFrame[] = [];
  for (let call = 1; call <= random.between(1, 6); call++) {
    const session = random.chance(0.4);
    const timeoutMs = random.chance(0.3) ? random.between(0, 50) : 60_000;
    if (session) frames.push({ call, begin: { session, timeoutMs } });
    for (let messages = session ? random.between(0, 5) : 1; messages > 0; messages--) {
      const message = request(random);
      const begin = session ? {} : { begin: { timeoutMs } };
      const end = session ? {} : { end: true };
      const half = message.length >> 1;
      if (random.chance(0.5)) frames.push({ call, ...begin, ...end, piece: message });
      else {
        frames.push({ call, ...begin, messageBytes: message.length, piece: message.subarray(0, half) });
        frames.push({ call, ...end, piece: message.subarray(half) });
      }
    }
    if (session && random.chance(0.7)) frames.push({ call, end: true });
    if (random.chance(0.2)) frames.push({ call, cancel: random.pick([1, 4]) });
    if (random.chance(0.2)) frames.push({ call: 0, connection: { ping: true } });
  }
  return frames;
}

/** Frames that say what is not so, or what nobody may say. */
function lyingFrame(random: Random): v1.IExchangeFrame {
  const call = random.chance(0.8) ? random.between(0, 5) : random.pick([2 ** 31, 2 ** 32 - 1]);
  const huge = random.chance(0.5) ? random.between(0, 2 * MIB) : random.pick(HUGE);
  const piece = noise(random, 200);
  const bulkRight = random.pick([v1.BulkRight.BULK_RIGHT_WANTED, v1.BulkRight.BULK_RIGHT_PASSED, 7 as v1.BulkRight]);
  return random.pick<() => v1.IExchangeFrame>([
    () => ({ call, begin: { session: random.chance(0.5) } }),
    () => ({ call, begin: {}, messageBytes: huge, piece }),
    () => ({ call, messageBytes: huge, piece }),
    () => ({ call, messageBytes: random.between(0, 10), piece }),
    () => ({ call, piece }),
    () => ({ call, piece: new Uint8Array(), end: random.chance(0.5) }),
    () => ({ call, end: true }),
    () => ({ call, cancel: random.pick([1, 4, 99]) }),
    () => ({ call, takenBytes: huge }),
    () => ({ call, status: { code: random.between(0, 20), message: 'no' } }),
    () => ({ call: 0, connection: { bulkRight } }),
    () => ({ call: 0, connection: { receivedBytes: huge } }),
    () => ({ call: 0, connection: { pong: true, draining: random.chance(0.5) } }),
    () => ({ call, connection: { ping: true, bulkRight, receivedBytes: huge }, piece }),
    () => ({ call, begin: { timeoutMs: random.pick([Number.NaN, -1, 0, 1e300, Number.NEGATIVE_INFINITY, 2 ** 31]) } }),
    () => ({ call, begin: { metadata: { __proto__: 'x', 'grpc-timeout': '1n', 'Upper-Case': '\n', '': 'ü' } } }),
    () => ({ call, begin: { metadata: { 'x-large': 'a'.repeat(random.between(0, 40_000)) } } }),
    () => ({ call, begin: { session: true }, messageBytes: 100, piece: request(random), end: true, cancel: 1 }),
  ])();
}

function hello(random: Random): Record<string, string> {
  const said: v1.IHello = random.pick([
    { maxMessageBytes: 64 * MIB },
    { maxMessageBytes: 1 },
    { maxMessageBytes: 64 * MIB, readsWhileWriting: true },
    {},
  ]);
  const bytes = random.chance(0.9) ? Buffer.from(v1.Hello.encode(said).finish()) : noise(random, 20);
  return random.chance(0.9) ? { 'splitlearn-hello-bin': bytes.toString('base64') } : {};
}

/** Some bytes changed, some cut out, some twice. */
function damaged(random: Random, bytes: Buffer): Buffer {
  let result = Buffer.from(bytes);
  for (let times = random.between(1, 4); times > 0 && result.length > 0; times--) {
    const at = random.between(0, result.length - 1);
    const to = Math.min(result.length, at + random.between(1, 30));
    if (random.chance(0.6)) result[at] = random.between(0, 255);
    else if (random.chance(0.5)) result = Buffer.concat([result.subarray(0, at), result.subarray(to)]);
    else result = Buffer.concat([result.subarray(0, to), result.subarray(at)]);
  }
  return result;
}

interface Kind {
  readonly name: string;
  readonly weight: number;
  readonly write: (script: Script, random: Random) => void;
}

const KINDS: readonly Kind[] = [
  {
    name: 'no HTTP/2',
    weight: 6,
    write(script, random) {
      const greeting = random.pick([
        Buffer.from(PREFACE.slice(0, random.between(0, PREFACE.length - 1))),
        Buffer.from('GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n\r\n'),
        Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]),
        noise(random, 200),
      ]);
      script.bytes(greeting).bytes(noise(random, 50));
    },
  },
  {
    name: 'good calls',
    weight: 10,
    write(script, random) {
      script.begin();
      for (let calls = random.between(1, 5); calls > 0; calls--) {
        const stream = script.open(
          random.pick([...METHODS, ...HEALTH]),
          random.chance(0.3) ? { 'grpc-timeout': '1m' } : {},
        );
        script.data(stream, prefixed(request(random)), random.chance(0.8) ? END_STREAM : 0);
      }
    },
  },
  {
    name: 'lengths that are not so',
    weight: 8,
    write(script, random) {
      script.begin();
      const stream = script.open(random.pick(METHODS));
      const bytes = prefixed(request(random));
      bytes.writeUInt32BE(
        random.pick([0, 1, bytes.length, bytes.length - 6, MIB, MIB + 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]),
        1,
      );
      script.data(stream, bytes, random.chance(0.5) ? END_STREAM : 0);
    },
  },
  {
    name: 'too large',
    weight: 1,
    write(script, random) {
      script.begin();
      const stream = script.open(random.pick(METHODS));
      script.data(stream, prefixed(Buffer.alloc(random.between(MIB - 10, 2 * MIB))), END_STREAM);
    },
  },
  {
    name: 'compressed',
    weight: 4,
    write(script, random) {
      script.begin();
      const encoding = random.pick(['gzip', 'deflate', 'identity', 'br', '']);
      const stream = script.open(random.pick(METHODS), encoding ? { 'grpc-encoding': encoding } : {});
      const content = random.chance(0.05) ? bomb : random.chance(0.5) ? gzipSync(request(random)) : noise(random, 100);
      const bytes = prefixed(content);
      bytes[0] = random.pick([1, 1, 1, 2, 255]);
      script.data(stream, bytes, END_STREAM);
    },
  },
  {
    name: 'many streams, in pieces',
    weight: 4,
    write(script, random) {
      script.begin();
      const rest = Array.from({ length: random.between(2, 60) }, () => ({
        stream: script.open(random.pick(METHODS)),
        bytes: random.chance(0.7) ? prefixed(request(random)) : noise(random, 300),
      }));
      for (let turn = 0; turn < 200 && rest.length > 0; turn++) {
        const one = random.pick(rest);
        const length = Math.min(one.bytes.length, random.between(0, 8_000));
        const last = length === one.bytes.length;
        script.frame(FRAME.data, last ? END_STREAM : 0, one.stream, one.bytes.subarray(0, length));
        one.bytes = one.bytes.subarray(length);
        if (last) rest.splice(rest.indexOf(one), 1);
      }
    },
  },
  {
    name: 'reset streams',
    weight: 4,
    write(script, random) {
      script.begin();
      for (let times = random.between(1, random.chance(0.02) ? 1_500 : 40); times > 0; times--) {
        const stream = script.open(random.pick(METHODS));
        if (random.chance(0.6)) script.data(stream, prefixed(request(random)), random.pick([0, END_STREAM]));
        script.frame(FRAME.reset, 0, stream, Buffer.of(0, 0, 0, random.between(0, 14)));
      }
    },
  },
  {
    name: 'floods of headers',
    weight: 3,
    write(script, random) {
      script.begin();
      const large = { 'x-large': 'a'.repeat(random.between(0, 12_000)), ...hello(random) };
      if (random.chance(0.5)) {
        for (let times = random.between(1, 20); times > 0; times--) script.open(random.pick(METHODS), large);
        return;
      }
      script.frame(FRAME.headers, 0, 1, encodeHeaders(callHeaders('Compute')));
      for (let times = random.between(1, 40); times > 0; times--) {
        script.frame(CONTINUATION, 0, 1, encodeHeaders(large));
      }
      if (random.chance(0.5)) script.frame(CONTINUATION, END_HEADERS, 1);
    },
  },
  {
    name: 'headers that are none',
    weight: 4,
    write(script, random) {
      script.begin();
      const headers = random.pick<Record<string, string>>([
        { 'content-type': 'text/html' },
        { ':method': 'GET' },
        { 'grpc-timeout': random.pick(['-1S', '99999999999S', 'x', '']) },
        { 'Upper-Case': 'x', 'bad name': '\0' },
        { 'splitlearn-hello-bin': '!' },
        { authorization: 'Bearer' },
        { 'content-length': '5' },
      ]);
      const stream = script.open(random.pick(METHODS), headers);
      script.data(stream, prefixed(request(random)), END_STREAM);
      if (random.chance(0.3)) script.frame(FRAME.headers, END_HEADERS, script.open('Compute'), noise(random, 100));
    },
  },
  {
    name: 'floods of frames',
    weight: 2,
    write(script, random) {
      script.begin();
      const [type, payload] = random.pick<[number, Buffer]>([
        [FRAME.ping, Buffer.alloc(8)],
        [FRAME.settings, Buffer.alloc(0)],
        [FRAME.windowUpdate, Buffer.of(0, 0, 0, 1)],
        [PRIORITY, Buffer.alloc(5)],
        [200, noise(random, 50)],
      ]);
      const one = frame(type, 0, type === PRIORITY ? 1 : 0, payload);
      script.bytes(Buffer.concat(new Array<Buffer>(random.between(10, random.chance(0.1) ? 3_000 : 300)).fill(one)));
    },
  },
  {
    name: 'frames that are out of place',
    weight: 8,
    write(script, random) {
      script.begin();
      const stream = script.open(random.pick(METHODS));
      if (random.chance(0.5)) script.data(stream, prefixed(request(random)), END_STREAM);
      const other = random.pick([0, stream, stream + 2, 2, 2 ** 31 - 1]);
      const settings = Buffer.alloc(6);
      settings.writeUInt16BE(random.between(0, 10));
      settings.writeUInt32BE(random.pick([0, 1, ...HUGE.slice(0, 2)]), 2);
      random.pick([
        () => script.frame(FRAME.data, random.pick([0, END_STREAM]), other, noise(random, 100)),
        () => script.frame(FRAME.data, PADDED, other, Buffer.of(255, 1, 2)),
        () => script.frame(FRAME.headers, END_HEADERS, other, encodeHeaders(callHeaders('Compute'))),
        () =>
          script.frame(
            FRAME.windowUpdate,
            0,
            other,
            random.pick([Buffer.alloc(4), Buffer.alloc(4, 0x7f), Buffer.alloc(3)]),
          ),
        () => script.frame(FRAME.settings, random.pick([0, ACK]), random.pick([0, other]), settings),
        () => script.frame(FRAME.settings, 0, 0, noise(random, 20)),
        () => script.frame(FRAME.ping, 0, random.pick([0, other]), noise(random, 20)),
        () => script.frame(FRAME.goaway, 0, 0, Buffer.alloc(8)),
        () => script.frame(FRAME.reset, 0, other, Buffer.alloc(random.between(0, 8))),
        () => script.frame(PUSH_PROMISE, END_HEADERS, other, Buffer.alloc(8)),
        () => script.frame(CONTINUATION, END_HEADERS, other, noise(random, 20)),
        () => script.bytes(noise(random, 300)),
      ])();
      script.data(script.open('Compute'), prefixed(request(random)), END_STREAM);
    },
  },
  {
    name: 'an Exchange of noise',
    weight: 4,
    write(script, random) {
      script.begin();
      const stream = script.open('Exchange', hello(random));
      for (let times = random.between(1, 10); times > 0; times--) {
        script.data(stream, random.chance(0.7) ? prefixed(noise(random, 100)) : noise(random, 100));
      }
    },
  },
  {
    name: 'an Exchange as it should be',
    weight: 10,
    write(script, random) {
      writeExchange(script, random, Buffer.concat(goodFrames(random).map(frameBytes)));
    },
  },
  {
    name: 'an Exchange that is damaged',
    weight: 12,
    write(script, random) {
      writeExchange(script, random, damaged(random, Buffer.concat(goodFrames(random).map(frameBytes))));
    },
  },
  {
    name: 'an Exchange out of order',
    weight: 8,
    write(script, random) {
      const frames = goodFrames(random);
      for (let times = random.between(1, 3); times > 0; times--) {
        const at = random.between(0, frames.length - 1);
        const [one] = random.chance(0.5) ? frames.splice(at, 1) : frames.slice(at);
        if (one) frames.splice(random.between(0, frames.length), 0, one);
      }
      writeExchange(script, random, Buffer.concat(frames.map(frameBytes)));
    },
  },
  {
    name: 'an Exchange of lies',
    weight: 16,
    write(script, random) {
      const frames = goodFrames(random);
      for (let times = random.between(1, 12); times > 0; times--) {
        frames.splice(random.between(0, frames.length), 0, lyingFrame(random));
      }
      writeExchange(script, random, Buffer.concat(frames.map(frameBytes)));
    },
  },
  {
    name: 'very many calls',
    weight: 1,
    write(script, random) {
      const begin = random.pick<v1.IExchangeFrame>([
        { begin: { session: true } },
        { begin: {} },
        { begin: {}, end: true },
      ]);
      const calls = Array.from({ length: random.between(100, 600) }, (_, index) => ({ ...begin, call: index + 1 }));
      writeExchange(script, random, Buffer.concat(calls.map(frameBytes)));
    },
  },
  {
    name: 'several Exchanges',
    weight: 3,
    write(script, random) {
      script.begin();
      const streams = Array.from({ length: random.between(2, 6) }, () => script.open('Exchange', hello(random)));
      for (let times = random.between(2, 20); times > 0; times--) {
        script.data(
          random.pick(streams),
          frameBytes(random.chance(0.5) ? lyingFrame(random) : (goodFrames(random)[0] ?? {})),
        );
      }
    },
  },
];

/** On one stream, cut into DATA frames anywhere, and perhaps ended. */
function writeExchange(script: Script, random: Random, bytes: Buffer): void {
  script.begin();
  const stream = script.open('Exchange', hello(random));
  const most = random.pick([20, 1_000, 16 * KIB]);
  let rest = bytes;
  // As many small ones as there may be, and what is left in large ones.
  for (let times = 0; times < 100 && rest.length > 0; times++) {
    const length = Math.min(rest.length, random.between(1, most));
    script.frame(FRAME.data, 0, stream, rest.subarray(0, length));
    rest = rest.subarray(length);
  }
  script.data(stream, rest, random.chance(0.3) ? END_STREAM : 0);
}

/** One that is drawn. */
export function hostileConversation(random: Random): Conversation {
  const { name, write } = random.weighted(KINDS);
  const script = new Script();
  write(script, random);
  let bytes = script.joined();
  if (random.chance(0.15)) bytes = bytes.subarray(0, random.between(0, bytes.length));
  if (random.chance(0.03)) bytes = damaged(random, bytes);
  const places = Array.from({ length: random.between(0, 3) }, () => random.between(0, bytes.length)).sort(
    (a, b) => a - b,
  );
  return {
    kind: name,
    writes: [0, ...places].map((from, index) => bytes.subarray(from, places[index])),
    reads: random.chance(0.9),
    ending: random.weighted([
      { weight: 40, ending: 'leaves' as const },
      { weight: 25, ending: 'resets' as const },
      { weight: 25, ending: 'ends' as const },
      { weight: 10, ending: 'stays' as const },
    ]).ending,
  };
}
