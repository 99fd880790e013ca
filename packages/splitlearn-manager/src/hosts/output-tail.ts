import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';

const MAX_LINES = 20;
const MAX_LINE_CHARACTERS = 500;

/** Passes on, line by line, what a process writes, and keeps the last lines: what it said before it died. */
export class OutputTail {
  readonly #lines: string[] = [];

  constructor(child: ChildProcess, onLine: (line: string) => void) {
    for (const input of [child.stdout, child.stderr]) {
      if (!input) continue;
      createInterface({ input }).on('line', (line) => {
        this.#lines.push(line.slice(0, MAX_LINE_CHARACTERS));
        if (this.#lines.length > MAX_LINES) this.#lines.shift();
        onLine(line);
      });
    }
  }

  /** For the end of a sentence; empty when the process wrote nothing. */
  asClause(): string {
    return this.#lines.length > 0 ? ` (its last output: ${this.#lines.join('\n')})` : '';
  }
}
