import type { ServerDuplexStream } from '@grpc/grpc-js';
import { type ExchangeLimits, ServerExchange } from '../exchange/server-exchange.js';
import type { Answers } from './async-compute-servicer.js';

type ExchangeCall = ServerDuplexStream<Uint8Array, Uint8Array>;

/** Answers the calls of all Exchanges of a server. */
export class ExchangeServer {
  readonly #answers: Answers;
  readonly #limits: ExchangeLimits;
  readonly #connections = new Set<ServerExchange>();
  readonly #budget: { bytes: number };
  #draining = false;

  constructor(answers: Answers, limits: ExchangeLimits) {
    this.#answers = answers;
    this.#limits = limits;
    this.#budget = { bytes: limits.maxRequestBytes };
  }

  readonly serve = (call: ExchangeCall): void => {
    if (call.cancelled) return;
    const connection = new ServerExchange(call, this.#answers, this.#limits, this.#budget, () =>
      this.#connections.delete(connection),
    );
    this.#connections.add(connection);
    if (this.#draining) connection.drain();
  };

  /** Lets no further call begin, on any connection. One that has no call open ends. */
  drain(): void {
    this.#draining = true;
    for (const connection of this.#connections) connection.drain();
  }
}
