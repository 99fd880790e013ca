import { setTimeout as sleep } from 'node:timers/promises';

const CALM = { delayMs: 0, bytesPerSecond: Number.POSITIVE_INFINITY, stalled: false };
const DIRECTIONS = ['toServer', 'toClient', 'both'];

/** What happens to a network, and how often. Each leaves the relay as it found it, or calm. */
const EVENTS = [
  { name: 'cut', weight: 8, run: ({ relay }) => relay.cut() },
  {
    name: 'cut within bytes',
    weight: 8,
    run: ({ relay, random }) =>
      relay.cutAfter(Math.ceil(10 ** (random.next() * 7)), random.pick(['toServer', 'toClient'])),
  },
  {
    name: 'stall',
    weight: 4,
    async run({ relay, random, wait }) {
      const direction = random.pick(DIRECTIONS);
      relay.set({ stalled: true }, direction);
      await wait(random.between(50, 1_500));
      if (random.chance(0.3)) relay.cut();
      relay.set({ stalled: false }, direction);
    },
  },
  {
    name: 'delay',
    weight: 3,
    async run({ relay, random, wait }) {
      const direction = random.pick(DIRECTIONS);
      relay.set({ delayMs: random.between(1, 40) }, direction);
      await wait(random.between(500, 3_000));
      relay.set({ delayMs: 0 }, direction);
    },
  },
  {
    name: 'slow line',
    weight: 3,
    async run({ relay, random, wait }) {
      const direction = random.pick(DIRECTIONS);
      relay.set({ bytesPerSecond: random.between(500_000, 20_000_000) }, direction);
      await wait(random.between(500, 2_000));
      relay.set({ bytesPerSecond: Number.POSITIVE_INFINITY }, direction);
    },
  },
  {
    name: 'refuse',
    weight: 2,
    async run({ relay, random, wait }) {
      relay.refusing = true;
      if (random.chance(0.7)) relay.cut();
      await wait(random.between(50, 800));
      relay.refusing = false;
    },
  },
  {
    name: 'black hole',
    weight: 1,
    async run({ relay, random, wait }) {
      relay.blackHole();
      await wait(random.between(200, 2_000));
      relay.cut();
    },
  },
];

/** The faults of one relay, drawn one after the other, every few hundred milliseconds to seconds. */
export class Weather {
  counts = Object.fromEntries(EVENTS.map(({ name }) => [name, 0]));
  #relay;
  #random;
  #stop = new AbortController();
  #going;

  constructor(relay, random) {
    this.#relay = relay;
    this.#random = random;
  }

  begin() {
    this.#stop = new AbortController();
    this.#going = this.#go();
  }

  /** No fault from here on, and none that goes on. */
  async calm() {
    this.#stop.abort();
    await this.#going;
    this.#relay.refusing = false;
    this.#relay.set(CALM);
  }

  async #go() {
    const { signal } = this.#stop;
    const wait = (timeMs) => sleep(timeMs, undefined, { signal }).catch(() => {});
    while (!signal.aborted) {
      await wait(this.#random.chance(0.1) ? this.#random.between(2_000, 5_000) : this.#random.between(200, 1_500));
      if (signal.aborted) return;
      const event = this.#random.weighted(EVENTS);
      this.counts[event.name]++;
      await event.run({ relay: this.#relay, random: this.#random, wait });
    }
  }
}
