import { lookup } from 'node:dns/promises';
import { CommError } from '../errors.js';
import type { Connection } from './connection.js';

/** Which of several servers the next call goes to. */
export type Balancing = 'least-outstanding' | 'round-robin';

/** How long a server that could not be reached is left out at first, and at the most. */
const FIRST_PROBE_MS = 200;
const LAST_PROBE_MS = 5_000;
/** How often a name is looked up again, at the most; and when it could not be, while other addresses are known. */
const LOOKUP_MS = 30_000;
const FAILED_LOOKUP_MS = 5_000;

export interface BalancerOptions {
  readonly balancing: Balancing;
  /** `serverName`: the name that an address was looked up for. */
  readonly connect: (address: string, serverName?: string) => Connection;
  /** Whether the server behind a connection says that it serves. */
  readonly probe: (connection: Connection) => Promise<boolean>;
  readonly resolve?: (host: string) => Promise<readonly string[]>;
  readonly now?: () => number;
}

interface Member {
  readonly connection: Connection;
  /** When it may be tried again; 0 while it is well. */
  probeMs: number;
  delayMs: number;
  probing: boolean;
  /** Whether it was tried since it was left out: how calls end that had begun before says nothing new. */
  tried: boolean;
}

/**
 * Picks a connection for each call: of those that are well, the one with the fewest calls under way, or each in turn. A
 * server that cannot be reached, or is stopping, is left out until it says that it serves.
 */
export class Balancer {
  readonly #targets: readonly string[];
  readonly #options: BalancerOptions;
  readonly #members = new Map<string, Member>();
  #resolving: Promise<void> | undefined;
  #lookupMs = Number.NEGATIVE_INFINITY;
  /** Where there is one address, there is nothing to choose. */
  readonly #only: Connection | undefined;
  #next = 0;
  #closed = false;

  /** @param targets - Addresses, or `dns:///host:port` for all that a name stands for. */
  constructor(targets: readonly string[], options: BalancerOptions) {
    this.#targets = targets;
    this.#options = options;
    for (const target of targets) if (!target.startsWith(DNS)) this.#add(target);
    if (targets.length === 1) this.#only = this.#members.get(targets[0] as string)?.connection;
  }

  /** The connections there are now. */
  get connections(): Connection[] {
    return [...this.#members.values()].map(({ connection }) => connection);
  }

  /** Whether a call can leave at once, whichever connection it gets. */
  get isOpen(): boolean {
    if (this.#only) return this.#only.isOpen;
    for (const { connection } of this.#members.values()) if (!connection.isOpen) return false;
    return this.#members.size > 0;
  }

  /** The connection that the next call should use; a promise only while names are looked up for the first time. */
  pick(): Connection | Promise<Connection> {
    if (this.#only) return this.#only;
    const none = this.#members.size === 0;
    if (this.#targets.some((target) => target.startsWith(DNS)) && (none || this.#now() >= this.#lookupMs)) {
      this.#resolving ??= this.#resolve().finally(() => (this.#resolving = undefined));
      // Later on the addresses of before will do until the new ones are known.
      if (none) return this.#resolving.then(() => this.#choose());
      this.#resolving.catch(() => {});
    }
    return this.#choose();
  }

  /** Tells how a call on a connection ended; only what says something of the server itself counts. */
  report(connection: Connection, error?: CommError): void {
    const member = this.#members.get(connection.address);
    if (this.#only || member?.connection !== connection) return;
    if (error && !(error.code === 'UNAVAILABLE' && SERVER_GONE.has(error.reason ?? ''))) return;
    if (member.probeMs > 0 && !member.tried) return;
    member.tried = false;
    if (!error) {
      this.#well(member);
      return;
    }
    member.delayMs = member.probeMs === 0 ? FIRST_PROBE_MS : Math.min(LAST_PROBE_MS, member.delayMs * 2);
    member.probeMs = this.#now() + member.delayMs;
  }

  close(): void {
    this.#closed = true;
    for (const { connection } of this.#members.values()) connection.close();
  }

  #choose(): Connection {
    const members = [...this.#members.values()];
    const now = this.#now();
    for (const member of members) if (member.probeMs > 0 && member.probeMs <= now) void this.#probe(member);
    const well = members.filter(({ probeMs }) => probeMs === 0);
    // Where none is well, the one to be tried next fails or succeeds for real.
    const candidates = well.length > 0 ? well : members.sort((a, b) => a.probeMs - b.probeMs).slice(0, 1);
    const start = this.#next++ % Math.max(1, candidates.length);
    let chosen = candidates[start];
    if (this.#options.balancing === 'least-outstanding') {
      // Begins somewhere else each time, so that equals take turns.
      for (let index = 1; index < candidates.length; index++) {
        const other = candidates[(start + index) % candidates.length] as Member;
        if (other.connection.inFlight < (chosen as Member).connection.inFlight) chosen = other;
      }
    }
    if (!chosen) throw new CommError('UNAVAILABLE', `no address is known of ${this.#targets}`, { reason: 'NOT_SENT' });
    chosen.tried = true;
    return chosen.connection;
  }

  async #probe(member: Member): Promise<void> {
    if (member.probing) return;
    member.probing = true;
    const serves = await this.#options.probe(member.connection).catch(() => false);
    member.probing = false;
    member.tried = true;
    if (serves) this.#well(member);
    else this.report(member.connection, new CommError('UNAVAILABLE', 'does not serve', { reason: 'NOT_SENT' }));
  }

  #well(member: Member): void {
    member.probeMs = 0;
    member.delayMs = 0;
  }

  async #resolve(): Promise<void> {
    const found = new Map<string, string | undefined>();
    let failure: unknown;
    for (const target of this.#targets) {
      if (!target.startsWith(DNS)) found.set(target, undefined);
      else await this.#lookup(target.slice(DNS.length), found).catch((error: unknown) => (failure = error));
    }
    this.#lookupMs = this.#now() + (failure ? FAILED_LOOKUP_MS : LOOKUP_MS);
    if (this.#closed) return;
    for (const [address, name] of found) if (!this.#members.has(address)) this.#add(address, name);
    if (failure) {
      // What was known of that name may still be right.
      if (this.#members.size === 0) throw failure;
      return;
    }
    for (const [address, { connection }] of this.#members) {
      if (found.has(address)) continue;
      this.#members.delete(address);
      connection.close();
    }
  }

  async #lookup(hostAndPort: string, found: Map<string, string | undefined>): Promise<void> {
    const at = hostAndPort.lastIndexOf(':');
    const [host, port] = [hostAndPort.slice(0, at), hostAndPort.slice(at + 1)];
    const { resolve = lookupAll } = this.#options;
    try {
      for (const ip of await resolve(host)) found.set(ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`, host);
    } catch (cause) {
      const message = `the name '${host}' cannot be looked up (${(cause as Error).message}); check it, and the network`;
      throw new CommError('UNAVAILABLE', message, { reason: 'NOT_SENT', cause });
    }
  }

  #add(address: string, serverName?: string): void {
    const connection = this.#options.connect(address, serverName);
    this.#members.set(address, { connection, probeMs: 0, delayMs: 0, probing: false, tried: false });
  }

  #now(): number {
    return this.#options.now?.() ?? Date.now();
  }
}

const DNS = 'dns:///';
/** Why a server is left out: it was not reached, went away, or is stopping. */
const SERVER_GONE = new Set(['NOT_SENT', 'CONNECTION_LOST', 'STALLED', 'STOPPING']);

async function lookupAll(host: string): Promise<readonly string[]> {
  const addresses = await lookup(host, { all: true });
  return addresses.map(({ address }) => address);
}
