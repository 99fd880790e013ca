import { Duplex } from 'node:stream';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type FaultConditions, Lane, Line, SOCKET_BUFFER_BYTES } from './fault-line.js';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] });
});
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** A line, and lanes on it of which the test is the source and reads the sink. */
function createLine(conditions: FaultConditions = {}, { bufferBytes = 2 ** 20, random = (): number => 0.5 } = {}) {
  const line = new Line(bufferBytes, random);
  line.set(conditions);
  return line;
}

function createLane(line: Line) {
  const startMs = performance.now();
  const arrived: [ms: number, what: string][] = [];
  const note = (what: string) => arrived.push([Math.round(performance.now() - startMs), what]);
  const source = new Duplex({ read() {}, write() {} });
  /** While this is set the sink is full; what it is set to makes room again. */
  let makeRoom: (() => void) | undefined;
  const sink = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      note(chunk.toString());
      if (makeRoom) makeRoom = done;
      else done();
    },
    final(done) {
      note('end');
      done();
    },
    writableHighWaterMark: 1,
  });
  const lane = new Lane(line, source, sink, () => note('reset'));
  return {
    lane,
    source,
    sink,
    arrived,
    send: (text: string) => source.emit('data', Buffer.from(text)),
    /** Sends a text again and again, until it is not read any more. Returns how often. */
    offer: (piece: string, times: number) => {
      let sent = 0;
      while (sent < times && !source.isPaused()) {
        source.emit('data', Buffer.from(piece));
        sent++;
      }
      return sent;
    },
    fill: () => {
      makeRoom = () => {};
    },
    drain: () => {
      const done = makeRoom;
      makeRoom = undefined;
      done?.();
    },
    text: () => arrived.map(([, what]) => what).join(''),
  };
}

describe('a lane', () => {
  it('hands on at once what need not wait', () => {
    const { send, source, arrived } = createLane(createLine());
    send('a');
    send('b');
    source.emit('end');
    expect(arrived).toEqual([
      [0, 'a'],
      [0, 'b'],
      [0, 'end'],
    ]);
  });

  it('lets each chunk take the delay, with any number under way', () => {
    const { send, source, arrived } = createLane(createLine({ delayMs: 25 }));
    for (const text of ['a', 'b', 'c', 'd']) {
      send(text);
      vi.advanceTimersByTime(10);
    }
    source.emit('end');
    vi.advanceTimersByTime(25);
    expect(arrived).toEqual([
      [25, 'a'],
      [35, 'b'],
      [45, 'c'],
      [55, 'd'],
      [65, 'end'],
    ]);
  });

  it('keeps the order when the delay becomes shorter', () => {
    const line = createLine({ delayMs: 1_000 });
    const { send, arrived } = createLane(line);
    send('a');
    vi.advanceTimersByTime(10);
    send('b');
    line.set({ delayMs: 20 });
    send('c');
    vi.advanceTimersByTime(10);
    expect(arrived).toEqual([[20, 'a']]);
    vi.advanceTimersByTime(1_000);
    expect(arrived).toEqual([
      [20, 'a'],
      [30, 'b'],
      [30, 'c'],
    ]);
  });

  it('waits for longer than a timer can, and for ever', () => {
    const line = createLine({ delayMs: 2 ** 32 });
    const { send, arrived, lane } = createLane(line);
    send('a');
    vi.advanceTimersByTime(2 ** 32 - 1);
    expect(arrived).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(arrived).toEqual([[2 ** 32, 'a']]);
    line.set({ delayMs: Number.POSITIVE_INFINITY });
    send('b');
    vi.advanceTimersByTime(2 ** 32);
    expect(arrived).toHaveLength(1);
    lane.lose();
  });

  it('lets a failure travel behind the bytes that were before it', () => {
    const { send, source, arrived } = createLane(createLine({ delayMs: 5 }));
    send('a');
    source.emit('error', new Error('ECONNRESET'));
    source.emit('close', true);
    vi.advanceTimersByTime(5);
    expect(arrived).toEqual([
      [5, 'a'],
      [5, 'reset'],
    ]);
  });

  it.each([
    ['after an end', true, false, []],
    ['without an end', false, false, [[0, 'reset']]],
    ['after an end and a failure', true, true, [[0, 'reset']]],
  ])('that is closed %s', (_name, ended, failed, expected) => {
    const { source, sink, arrived } = createLane(createLine());
    sink.end();
    arrived.length = 0;
    if (ended) source.emit('end');
    source.emit('close', failed);
    expect(arrived).toEqual(expected);
  });

  it('stops reading while its sink is full, and keeps what it has', () => {
    const { send, source, arrived, fill, drain } = createLane(createLine({ delayMs: 5 }));
    fill();
    send('a');
    send('b');
    vi.advanceTimersByTime(5);
    expect(arrived).toEqual([[5, 'a']]);
    expect(source.isPaused()).toBe(true);
    vi.advanceTimersByTime(5);
    drain();
    expect(arrived).toEqual([
      [5, 'a'],
      [10, 'b'],
    ]);
    expect(source.isPaused()).toBe(false);
  });

  it('stops reading with its buffer full', () => {
    const { send, source, text } = createLane(createLine({ delayMs: 5 }, { bufferBytes: 3 }));
    send('ab');
    expect(source.isPaused()).toBe(false);
    vi.advanceTimersByTime(1);
    send('cd');
    expect(source.isPaused()).toBe(true);
    vi.advanceTimersByTime(4);
    expect(text()).toBe('ab');
    expect(source.isPaused()).toBe(false);
    vi.advanceTimersByTime(1);
    expect(text()).toBe('abcd');
  });

  it('neither reads nor hands on while it is stalled', () => {
    const line = createLine({ delayMs: 5 });
    const { send, source, arrived } = createLane(line);
    send('a');
    line.set({ stalled: true });
    expect(source.isPaused()).toBe(true);
    source.emit('end');
    vi.advanceTimersByTime(100);
    expect(arrived).toEqual([]);
    line.set({ stalled: false });
    expect(source.isPaused()).toBe(false);
    expect(arrived).toEqual([
      [100, 'a'],
      [100, 'end'],
    ]);
  });

  it('that is made on a stalled line does not begin to read', () => {
    const { source } = createLane(createLine({ stalled: true }));
    expect(source.isPaused()).toBe(true);
  });

  it('that is lost reads on, and hands on nothing', () => {
    const line = createLine({ delayMs: 5, stalled: true });
    const { lane, send, source, arrived } = createLane(line);
    send('a');
    lane.lose();
    expect(source.isPaused()).toBe(false);
    send('b');
    source.emit('end');
    source.emit('close', true);
    line.set({ stalled: false });
    vi.advanceTimersByTime(100);
    expect(arrived).toEqual([]);
    expect(line.lanes.size).toBe(0);
  });

  it('leaves nothing behind when its sink is closed', () => {
    const line = createLine({ delayMs: 5 });
    const { send, sink } = createLane(line);
    send('a');
    expect(vi.getTimerCount()).toBe(1);
    sink.emit('close');
    expect(vi.getTimerCount()).toBe(0);
    expect(line.lanes.size).toBe(0);
  });
});

describe('bandwidth', () => {
  it('is the time that the last byte takes, before the delay', () => {
    const { send, arrived, text } = createLane(createLine({ bytesPerSecond: 1_000, delayMs: 50 }));
    send('x'.repeat(100));
    vi.advanceTimersByTime(1_000);
    expect(text()).toBe('x'.repeat(100));
    expect(arrived.at(0)?.[0]).toBeCloseTo(51, -1);
    expect(arrived.at(-1)?.[0]).toBe(150);
  });

  it('is not lost to late timers', () => {
    const { send, arrived } = createLane(createLine({ bytesPerSecond: 1_000 }));
    send('x'.repeat(100));
    // A process that does nothing for a while finds everything due that was due meanwhile.
    const now = vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 40);
    vi.advanceTimersToNextTimer();
    now.mockRestore();
    expect(arrived).toHaveLength(40);
    vi.advanceTimersByTime(200);
  });

  it('is shared evenly', () => {
    const line = createLine({ bytesPerSecond: 1_000 });
    const [first, second] = [createLane(line), createLane(line)];
    first.send('a'.repeat(100));
    second.send('b'.repeat(100));
    vi.advanceTimersByTime(100);
    expect(first.text().length).toBeCloseTo(50, -1);
    expect(second.text().length).toBeCloseTo(50, -1);
    vi.advanceTimersByTime(100);
    expect(first.text().length + second.text().length).toBe(200);
  });

  it('changes for what waits already', () => {
    const line = createLine({ bytesPerSecond: 1 });
    const { send, text } = createLane(line);
    send('x'.repeat(100));
    vi.advanceTimersByTime(2_000);
    expect(text()).toBe('xx');
    line.set({ bytesPerSecond: Number.POSITIVE_INFINITY });
    expect(text()).toBe('x'.repeat(100));
  });

  it('keeps no more than what fits on the line', () => {
    const slow = createLane(createLine({ bytesPerSecond: 1e6, delayMs: 100 }));
    const piece = 'x'.repeat(1_000);
    expect(slow.offer(piece, 2_000)).toBe(Math.ceil((SOCKET_BUFFER_BYTES + 100_000) / 1_000));
    vi.advanceTimersByTime(1_000);
    expect(slow.source.isPaused()).toBe(false);
  });
});

describe('what strikes', () => {
  /** What becomes of so many zeros that are sent in chunks of one length. */
  function carry(line: Line, total: number, chunkLength: number) {
    const chunks: Buffer[] = [];
    for (let sent = 0; sent < total; sent += chunkLength) {
      const { bytes, cut } = line.strike(Buffer.alloc(Math.min(chunkLength, total - sent)));
      chunks.push(bytes);
      if (cut) break;
    }
    return Buffer.concat(chunks);
  }
  const places = (bytes: Buffer) => [...bytes.entries()].filter(([, byte]) => byte === 0xff).map(([place]) => place);

  it.each([1, 2, 7, 50, 100])('strikes a byte that was named once, in chunks of %i', (chunkLength) => {
    const line = createLine();
    line.corruptions.left = 49;
    expect(places(carry(line, 100, chunkLength))).toEqual([49]);
    expect(line.corruptions.count).toBe(1);
  });

  it.each([1, 2, 7, 50, 100])('strikes wherever it draws, in chunks of %i', (chunkLength) => {
    // -ln(1 - 0.5) * 10 bytes pass from one to the next.
    const line = createLine({ corruptEveryBytes: 10 });
    expect(places(carry(line, 40, chunkLength))).toEqual([6, 13, 20, 27, 34]);
    expect(line.corruptions.count).toBe(5);
  });

  it('strikes so and so often on average', () => {
    let state = 1;
    const random = () => {
      state = (state * 48_271) % 2_147_483_647;
      return state / 2_147_483_647;
    };
    const line = createLine({ corruptEveryBytes: 1_000 }, { random });
    carry(line, 1_000_000, 4_096);
    expect(line.corruptions.count).toBeGreaterThan(900);
    expect(line.corruptions.count).toBeLessThan(1_100);
  });

  it.each([0, 1 - Number.EPSILON])('can draw %d', (number) => {
    const line = createLine({ corruptEveryBytes: 1 }, { random: () => number });
    expect(carry(line, 100, 10)).toHaveLength(100);
    line.set({ corruptEveryBytes: Number.POSITIVE_INFINITY });
    const before = line.corruptions.count;
    carry(line, 100, 10);
    expect(line.corruptions.count).toBe(before);
  });

  it.each([1, 2, 7, 50, 100])('cuts after the byte that was named, in chunks of %i', (chunkLength) => {
    const line = createLine();
    line.cuts.left = 49;
    expect(carry(line, 100, chunkLength)).toHaveLength(50);
    expect(carry(line, 100, chunkLength)).toHaveLength(100);
    expect(line.cuts.count).toBe(1);
  });

  it('cuts a lane behind its last byte, and counts nothing that comes after', () => {
    const line = createLine({ delayMs: 5 });
    const { send, source, arrived } = createLane(line);
    line.cuts.left = 2;
    send('abcd');
    line.cuts.left = 0;
    send('ef');
    source.emit('close', true);
    vi.advanceTimersByTime(5);
    expect(arrived).toEqual([
      [5, 'abc'],
      [5, 'reset'],
    ]);
    expect(line.cuts).toMatchObject({ count: 1, left: 0 });
  });
});
