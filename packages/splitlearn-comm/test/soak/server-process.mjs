import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

/** The server of a soak, as its caller's process sees it. */
export class ServerProcess {
  #child;
  #waiting = new Map();
  #questions = 0;

  /** @param trouble Told of what should not be: a warning, an error, an end. */
  constructor(unixAddress, trouble) {
    this.#child = fork(fileURLToPath(new URL('server.mjs', import.meta.url)), [unixAddress]);
    this.#child.on('message', ({ number, value, trouble: text }) => {
      if (text !== undefined) trouble(text);
      else this.#waiting.get(number)?.(value);
      this.#waiting.delete(number);
    });
    this.#child.on('exit', (code, signal) => {
      if (code !== 0) trouble(`the server ended with ${signal ?? code}`);
      for (const resolve of this.#waiting.values()) resolve(undefined);
    });
  }

  /** Asks what server.mjs answers. */
  ask(question) {
    const number = ++this.#questions;
    return new Promise((resolve) => {
      this.#waiting.set(number, resolve);
      this.#child.send({ number, ask: question });
    });
  }

  async stop() {
    const exited = once(this.#child, 'exit');
    void this.ask('stop');
    await exited;
  }
}
