import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Deferred, deferred, rejection } from '../../test/support/deferred.js';
import { CommError } from '../errors.js';
import { Balancer, type Balancing } from './balancer.js';
import type { Connection } from './connection.js';

/** A connection as far as a balancer looks at it. */
class FakeConnection {
  readonly address: string;
  readonly serverName: string | undefined;
  inFlight = 0;
  closed = false;

  constructor(address: string, serverName?: string) {
    this.address = address;
    this.serverName = serverName;
  }

  close(): void {
    this.closed = true;
  }
}

interface BedOptions {
  readonly balancing?: Balancing;
}

/** A balancer whose clock, health checks and name service are the test's. */
class Bed {
  nowMs = 1_000_000;
  /** What servers say when they are asked whether they serve: by address. One that is not here cannot be reached. */
  readonly serving = new Set<string>();
  readonly probed: string[] = [];
  /** Look-ups that have not been answered. */
  readonly lookups: { readonly host: string; readonly answer: Deferred<readonly string[]> }[] = [];
  readonly made: FakeConnection[] = [];
  readonly balancer: Balancer;

  constructor(targets: readonly string[], { balancing = 'round-robin' }: BedOptions = {}) {
    this.balancer = new Balancer(targets, {
      balancing,
      connect: (address, serverName) => {
        const connection = new FakeConnection(address, serverName);
        this.made.push(connection);
        return connection as unknown as Connection;
      },
      probe: async ({ address }) => {
        this.probed.push(address);
        if (!this.serving.has(address)) throw new CommError('UNAVAILABLE', 'nobody is there');
        return true;
      },
      resolve: (host) => {
        const answer = deferred<readonly string[]>();
        this.lookups.push({ host, answer });
        return answer.promise;
      },
      now: () => this.nowMs,
    });
  }

  /** The next connection, where it is known at once. */
  pick(): FakeConnection {
    const picked = this.balancer.pick();
    if (picked instanceof Promise) throw new Error('names are looked up');
    return picked as unknown as FakeConnection;
  }

  picks(count: number): string[] {
    return Array.from({ length: count }, () => this.pick().address);
  }

  report(connection: FakeConnection, reason?: string): void {
    const error = reason === undefined ? undefined : new CommError('UNAVAILABLE', 'gone', { reason });
    this.balancer.report(connection as unknown as Connection, error);
  }

  /** Makes a call that fails, on the server of an address. */
  fail(address: string, reason = 'NOT_SENT'): void {
    const connection = this.made.find((one) => one.address === address);
    if (!connection) throw new Error(`there is no ${address}`);
    this.report(connection, reason);
  }

  /** Answers the oldest look-up. */
  async answer(...addresses: readonly string[]): Promise<void> {
    this.lookups.shift()?.answer.resolve(addresses);
    await turns();
  }

  async refuse(message: string): Promise<void> {
    this.lookups.shift()?.answer.reject(new Error(message));
    await turns();
  }

  get open(): string[] {
    return this.made.filter(({ closed }) => !closed).map(({ address }) => address);
  }
}

/** Lets promises settle. */
function turns(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

const ABC = ['a:1', 'b:1', 'c:1'];

describe('one address', () => {
  it('is always the one, whatever becomes of its calls', () => {
    const bed = new Bed(['a:1']);
    expect(bed.picks(2)).toEqual(['a:1', 'a:1']);
    bed.fail('a:1');
    expect(bed.picks(2)).toEqual(['a:1', 'a:1']);
    expect(bed.probed).toEqual([]);
  });
});

describe('round-robin', () => {
  it('takes each in turn', () => {
    const bed = new Bed(ABC);
    expect(bed.picks(6)).toEqual([...ABC, ...ABC]);
  });

  it('does not look at what is under way', () => {
    const bed = new Bed(ABC);
    for (const connection of bed.made) connection.inFlight = connection.address === 'a:1' ? 99 : 0;
    expect(bed.picks(3)).toEqual(ABC);
  });
});

describe('least-outstanding', () => {
  it('takes the one with the fewest calls under way', () => {
    const bed = new Bed(ABC, { balancing: 'least-outstanding' });
    for (const [index, connection] of bed.made.entries()) connection.inFlight = [3, 1, 2][index] as number;
    expect(bed.picks(4)).toEqual(['b:1', 'b:1', 'b:1', 'b:1']);
  });

  it('lets equals take turns, so that a client with one call at a time uses all', () => {
    const bed = new Bed(ABC, { balancing: 'least-outstanding' });
    expect(bed.picks(6).sort()).toEqual(['a:1', 'a:1', 'b:1', 'b:1', 'c:1', 'c:1']);
    (bed.made[1] as FakeConnection).inFlight = 1;
    expect(new Set(bed.picks(6))).toEqual(new Set(['a:1', 'c:1']));
  });

  it('never takes one that has more under way than another', () => {
    const addresses = fc.uniqueArray(fc.nat(999), { minLength: 2, maxLength: 6 });
    fc.assert(
      fc.property(addresses, fc.array(fc.nat(5), { maxLength: 50 }), (numbers, steps) => {
        const bed = new Bed(
          numbers.map((number) => `host-${number}:1`),
          { balancing: 'least-outstanding' },
        );
        for (const step of steps) {
          const least = Math.min(...bed.made.map(({ inFlight }) => inFlight));
          const picked = bed.pick();
          expect(picked.inFlight).toBe(least);
          picked.inFlight++;
          const ended = bed.made[step % bed.made.length] as FakeConnection;
          if (ended.inFlight > 0) ended.inFlight--;
        }
      }),
    );
  });
});

describe('a server that is gone', () => {
  it.each(['NOT_SENT', 'CONNECTION_LOST', 'STALLED', 'STOPPING'])('is left out after %s', (reason) => {
    const bed = new Bed(ABC);
    bed.fail('b:1', reason);
    expect(new Set(bed.picks(6))).toEqual(new Set(['a:1', 'c:1']));
    expect(bed.probed).toEqual([]);
  });

  it.each<[string, CommError]>([
    ['a worker that crashed', new CommError('UNAVAILABLE', 'x', { reason: 'WORKER_CRASHED' })],
    ['an UNAVAILABLE of the function', new CommError('UNAVAILABLE', 'x')],
    ['a full queue', new CommError('RESOURCE_EXHAUSTED', 'x', { reason: 'QUEUE_FULL' })],
    ['a deadline', new CommError('DEADLINE_EXCEEDED', 'x')],
    ['a bug', new CommError('INTERNAL', 'x', { reason: 'NOT_SENT' })],
  ])('is not one that answers with %s', (_, error) => {
    const bed = new Bed(ABC);
    bed.balancer.report(bed.made[1] as unknown as Connection, error);
    expect(bed.picks(3)).toEqual(ABC);
  });

  it('is asked after 200 ms, by the next call, which does not wait for the answer', async () => {
    const bed = new Bed(ABC);
    bed.fail('b:1');
    bed.nowMs += 199;
    bed.picks(2);
    expect(bed.probed).toEqual([]);
    bed.nowMs += 1;
    bed.serving.add('b:1');
    expect(['a:1', 'c:1']).toContain(bed.pick().address);
    expect(bed.probed).toEqual(['b:1']);
    await turns();
    expect(new Set(bed.picks(3))).toEqual(new Set(ABC));
  });

  it('is asked once at a time', () => {
    const bed = new Bed(ABC);
    bed.fail('b:1');
    bed.nowMs += 200;
    bed.picks(5);
    expect(bed.probed).toEqual(['b:1']);
  });

  it('is asked half as often each time, down to every 5 s, and from the beginning when it was there again', async () => {
    const bed = new Bed(ABC);
    const waits = async () => {
      const startMs = bed.nowMs;
      const before = bed.probed.length;
      while (bed.probed.length === before) {
        bed.nowMs += 100;
        bed.pick();
      }
      await turns();
      return bed.nowMs - startMs;
    };
    bed.fail('b:1');
    const delays: number[] = [];
    for (let probe = 0; probe < 7; probe++) delays.push(await waits());
    expect(delays).toEqual([200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    bed.serving.add('b:1');
    expect(await waits()).toBe(5_000);
    expect(new Set(bed.picks(3))).toEqual(new Set(ABC));
    bed.serving.delete('b:1');
    bed.fail('b:1');
    expect(await waits()).toBe(200);
  });

  it('is left out for 200 ms also where a hundred calls were lost with it', async () => {
    const bed = new Bed(ABC);
    const lost = Array.from({ length: 300 }, () => bed.pick()).filter(({ address }) => address === 'b:1');
    for (const connection of lost) bed.report(connection, 'CONNECTION_LOST');
    bed.nowMs += 200;
    bed.serving.add('b:1');
    bed.pick();
    await turns();
    expect(bed.probed).toEqual(['b:1']);
    expect(new Set(bed.picks(3))).toEqual(new Set(ABC));
  });

  it('stays left out while it stops, though calls of before still succeed there', () => {
    const bed = new Bed(ABC);
    const [, before] = [bed.pick(), bed.pick()];
    expect(before?.address).toBe('b:1');
    bed.fail('b:1', 'STOPPING');
    bed.report(before as FakeConnection);
    expect(new Set(bed.picks(6))).toEqual(new Set(['a:1', 'c:1']));
  });
});

describe('where no server is well', () => {
  it('each is tried for real, in the order in which their time comes', () => {
    const bed = new Bed(['a:1', 'b:1']);
    bed.fail('b:1');
    bed.nowMs += 10;
    bed.fail('a:1');
    const tries: string[] = [];
    for (let call = 0; call < 4; call++) {
      const picked = bed.pick();
      tries.push(picked.address);
      bed.report(picked, 'NOT_SENT');
      bed.nowMs += 10;
    }
    expect(tries).toEqual(['b:1', 'a:1', 'b:1', 'a:1']);
  });

  it('the one that answers is well at once', () => {
    const bed = new Bed(['a:1', 'b:1']);
    bed.fail('b:1');
    bed.nowMs += 10;
    bed.fail('a:1');
    const picked = bed.pick();
    bed.report(picked);
    expect(bed.picks(3)).toEqual([picked.address, picked.address, picked.address]);
  });
});

describe('a name', () => {
  it('is looked up by the first call, and once for all that wait', async () => {
    const bed = new Bed(['dns:///gpu.example:50051']);
    expect(bed.made).toEqual([]);
    const [first, second] = [bed.balancer.pick(), bed.balancer.pick()];
    expect(bed.lookups.map(({ host }) => host)).toEqual(['gpu.example']);
    await bed.answer('10.0.0.1', '10.0.0.2');
    expect(new Set([(await first).address, (await second).address])).toEqual(
      new Set(['10.0.0.1:50051', '10.0.0.2:50051']),
    );
    expect(bed.made.map(({ serverName }) => serverName)).toEqual(['gpu.example', 'gpu.example']);
  });

  it('may stand for IPv6 addresses, and beside addresses', async () => {
    const bed = new Bed(['dns:///gpu.example:50051', 'other:1']);
    expect(bed.pick().address).toBe('other:1');
    await bed.answer('fd00::7', '10.0.0.1');
    expect(bed.open.sort()).toEqual(['10.0.0.1:50051', '[fd00::7]:50051', 'other:1']);
    expect(bed.made.map(({ serverName }) => serverName)).toEqual([undefined, 'gpu.example', 'gpu.example']);
  });

  it('is looked up again after 30 s, while calls go on with what is known', async () => {
    const bed = new Bed(['dns:///gpu.example:1']);
    const first = bed.balancer.pick();
    await bed.answer('10.0.0.1', '10.0.0.2');
    await first;
    bed.nowMs += 29_999;
    bed.picks(3);
    expect(bed.lookups).toEqual([]);
    bed.nowMs += 1;
    expect(new Set(bed.picks(4))).toEqual(new Set(['10.0.0.1:1', '10.0.0.2:1']));
    expect(bed.lookups).toHaveLength(1);
    await bed.answer('10.0.0.2', '10.0.0.3');
    expect(bed.open).toEqual(['10.0.0.2:1', '10.0.0.3:1']);
    expect(bed.made).toHaveLength(3);
    expect(new Set(bed.picks(4))).toEqual(new Set(['10.0.0.2:1', '10.0.0.3:1']));
    expect(bed.lookups).toEqual([]);
  });

  it('that cannot be looked up is UNAVAILABLE, for all that wait, and the next call tries again', async () => {
    const bed = new Bed(['dns:///gpu.example:1']);
    for (let round = 0; round < 3; round++) {
      const calls = [bed.balancer.pick(), bed.balancer.pick()].map((picked) => rejection(picked as Promise<unknown>));
      expect(bed.lookups).toHaveLength(1);
      await bed.refuse('queryA ENOTFOUND');
      for (const error of await Promise.all(calls)) {
        expect(error).toMatchObject({
          code: 'UNAVAILABLE',
          reason: 'NOT_SENT',
          message: "the name 'gpu.example' cannot be looked up (queryA ENOTFOUND); check it, and the network",
        });
      }
    }
    const call = bed.balancer.pick();
    await bed.answer('10.0.0.1');
    expect((await call).address).toBe('10.0.0.1:1');
  });

  it('that stands for nothing is looked up by the next call', async () => {
    const bed = new Bed(['dns:///gpu.example:1']);
    const call = rejection(bed.balancer.pick() as Promise<unknown>);
    await bed.answer();
    expect(await call).toMatchObject({ code: 'UNAVAILABLE', reason: 'NOT_SENT' });
    const next = bed.balancer.pick();
    await bed.answer('10.0.0.1');
    expect((await next).address).toBe('10.0.0.1:1');
  });

  it('that cannot be looked up any more keeps its addresses, and is looked up no more than every 5 s', async () => {
    const bed = new Bed(['dns:///gpu.example:1']);
    const first = bed.balancer.pick();
    await bed.answer('10.0.0.1');
    await first;
    bed.nowMs += 30_000;
    for (let lookup = 0; lookup < 3; lookup++) {
      bed.picks(3);
      expect(bed.lookups).toHaveLength(1);
      await bed.refuse('queryA ETIMEOUT');
      bed.nowMs += 4_999;
      expect(bed.picks(3)).toEqual(['10.0.0.1:1', '10.0.0.1:1', '10.0.0.1:1']);
      expect(bed.lookups).toEqual([]);
      bed.nowMs += 1;
    }
    bed.pick();
    await bed.answer('10.0.0.2');
    expect(bed.open).toEqual(['10.0.0.2:1']);
  });

  it('that cannot be looked up does not stand in the way of another', async () => {
    const bed = new Bed(['dns:///lost.example:1', 'dns:///gpu.example:1']);
    const call = bed.balancer.pick();
    await bed.refuse('queryA ENOTFOUND');
    await bed.answer('10.0.0.1');
    expect((await call).address).toBe('10.0.0.1:1');
  });

  it('whose look-up comes back when all is closed makes no connection', async () => {
    const bed = new Bed(['dns:///gpu.example:1']);
    const call = rejection(bed.balancer.pick() as Promise<unknown>);
    bed.balancer.close();
    await bed.answer('10.0.0.1');
    expect(await call).toMatchObject({ code: 'UNAVAILABLE', reason: 'NOT_SENT' });
    expect(bed.made).toEqual([]);
  });

  it('forgets what was said of an address that is gone and comes back', async () => {
    const bed = new Bed(['dns:///gpu.example:1', 'other:1']);
    bed.pick();
    await bed.answer('10.0.0.1');
    const old = bed.made.find(({ address }) => address === '10.0.0.1:1') as FakeConnection;
    for (const answer of [[], ['10.0.0.1']]) {
      bed.nowMs += 30_000;
      bed.pick();
      await bed.answer(...answer);
    }
    bed.report(old, 'CONNECTION_LOST');
    expect(new Set(bed.picks(4))).toEqual(new Set(['10.0.0.1:1', 'other:1']));
  });
});

describe('close', () => {
  it('closes all connections', () => {
    const bed = new Bed(ABC);
    bed.balancer.close();
    expect(bed.open).toEqual([]);
  });
});
