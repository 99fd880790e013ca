import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { collect, rejection } from '../../test/support/deferred.js';
import { CommError } from '../errors.js';
import { MESSAGE_OVERHEAD_BYTES, MessageQueue, SESSION_WINDOW_BYTES, SendWindow } from './session-window.js';

/** Lets everything happen that does not wait for anything. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
}

/** Whether a write is through by now. */
async function isThrough(write: Promise<void>): Promise<boolean> {
  let through = false;
  void write.then(() => (through = true));
  await settle();
  return through;
}

const at = (sent: () => void) => sent();

describe('SendWindow', () => {
  it('lets the writer be ahead of the reader by so much and no more', async () => {
    const window = new SendWindow();
    await window.write(SESSION_WINDOW_BYTES - MESSAGE_OVERHEAD_BYTES - 1, at);
    const last = window.write(0, at);
    expect(await isThrough(last)).toBe(false);
    window.taken(MESSAGE_OVERHEAD_BYTES);
    expect(await isThrough(last)).toBe(true);
  });

  it('lets any one message go, however large, and then waits until it is read', async () => {
    const window = new SendWindow();
    const write = window.write(10 * SESSION_WINDOW_BYTES, at);
    window.taken(9 * SESSION_WINDOW_BYTES);
    expect(await isThrough(write)).toBe(false);
    window.taken(MESSAGE_OVERHEAD_BYTES + 1);
    expect(await isThrough(write)).toBe(true);
  });

  it('waits until a message has left', async () => {
    const window = new SendWindow();
    let sent = () => {};
    const write = window.write(5, (whenSent) => (sent = whenSent));
    expect(await isThrough(write)).toBe(false);
    window.taken(5);
    expect(await isThrough(write)).toBe(false);
    sent();
    expect(await isThrough(write)).toBe(true);
  });

  it('lets nobody wait, nor send, when the session is over', async () => {
    const window = new SendWindow();
    const write = window.write(5 * SESSION_WINDOW_BYTES, () => {});
    window.release();
    await write;
    let asked = 0;
    await window.write(1, () => asked++);
    expect(asked).toBe(0);
  });

  it('does not owe a reader who says it has read more than it was sent', async () => {
    const window = new SendWindow();
    window.taken(100 * SESSION_WINDOW_BYTES);
    const write = window.write(SESSION_WINDOW_BYTES, at);
    expect(await isThrough(write)).toBe(false);
    window.release();
    await write;
  });

  it('passes on what sending throws', async () => {
    const error = new Error('moved');
    const fail = () => {
      throw error;
    };
    expect(await rejection(new SendWindow().write(1, fail))).toBe(error);
  });
});

describe('MessageQueue', () => {
  const message = (length: number) => new Uint8Array(length).fill(length);

  it('hands messages on in order, those from before and after its reader came', async () => {
    const queue = new MessageQueue(() => {});
    queue.push(message(1));
    queue.push(message(0));
    const all = collect({ [Symbol.asyncIterator]: () => queue[Symbol.asyncIterator]() });
    await settle();
    queue.push(message(3));
    await settle();
    queue.push(message(4));
    queue.end();
    queue.push(message(5));
    expect((await all).map(({ length }) => length)).toEqual([1, 0, 3, 4]);
  });

  it('hands on what came before an error, and then the error', async () => {
    const queue = new MessageQueue(() => {});
    const error = new CommError('UNAVAILABLE', 'gone');
    queue.push(message(1));
    queue.end({ error });
    queue.end();
    const messages = queue[Symbol.asyncIterator]();
    expect((await messages.next()).value).toEqual(message(1));
    expect(await rejection(messages.next())).toBe(error);
  });

  it('forgets what nobody has read when it is aborted, be its reader there or not', async () => {
    const error = new CommError('CANCELLED', 'cancelled');
    for (const waits of [false, true]) {
      const queue = new MessageQueue(() => {});
      const messages = queue[Symbol.asyncIterator]();
      const next = waits ? rejection(messages.next()) : undefined;
      await settle();
      if (!waits) queue.push(message(1));
      queue.abort(error);
      expect(await (next ?? rejection(messages.next()))).toBe(error);
    }
  });

  it('says how much has been read, in steps, and never more', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 0, max: 700_000 }), { maxLength: 20 }), async (lengths) => {
        let told = 0;
        let tellings = 0;
        const queue = new MessageQueue((bytes) => {
          told += bytes;
          tellings++;
        });
        for (const length of lengths) queue.push(new Uint8Array(length));
        queue.end();
        let read = 0;
        for await (const { length } of queue) {
          read += length + MESSAGE_OVERHEAD_BYTES;
          expect(told).toBeLessThanOrEqual(read);
          // A writer that may be ahead by four times as much never waits for a reader who waits for it.
          expect(read - told).toBeLessThan(SESSION_WINDOW_BYTES / 4);
        }
        expect(tellings).toBeLessThanOrEqual((4 * read) / SESSION_WINDOW_BYTES);
      }),
      { numRuns: 50 },
    );
  });
});
