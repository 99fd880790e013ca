import type { ChildProcess } from 'node:child_process';

const MAX_CHARACTERS = 2_000;

/** The last that a process wrote to its standard output and error: what it said before it died. */
export class OutputTail {
  #text = '';

  constructor(child: ChildProcess) {
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (chunk: string) => {
        this.#text = (this.#text + chunk).slice(-MAX_CHARACTERS);
      });
    }
  }

  /** For the end of a sentence; empty when the process wrote nothing. */
  asClause(): string {
    const text = this.#text.trim();
    return text && ` (its last output: ${text})`;
  }
}
