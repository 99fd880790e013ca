import type { ChildProcess } from 'node:child_process';
import type { Readable } from 'node:stream';

/** A longer line is passed on in pieces, so that a process which never ends its line takes no memory. */
const MAX_LINE_CHARACTERS = 4_000;
/** The rest of a longer one would not reach a client: of an error's message some 1000 characters do. */
const MAX_TAIL_CHARACTERS = 700;

/** Passes on, line by line, what a process writes, and keeps the end of it: what it said before it died. */
export class OutputTail {
  #tail = '';

  constructor(child: Pick<ChildProcess, 'stdout' | 'stderr'>, onLine: (line: string) => void) {
    for (const stream of [child.stdout, child.stderr]) if (stream) this.#read(stream, onLine);
  }

  /** For the end of a sentence; empty when the process wrote nothing. */
  asClause(): string {
    const text = this.#tail.toWellFormed().trim();
    return text && ` (its last output: ${text})`;
  }

  #read(stream: Readable, onLine: (line: string) => void): void {
    let line = '';
    stream.setEncoding('utf8');
    stream.on('data', (chunk: string) => {
      this.#tail = (this.#tail + chunk).slice(-MAX_TAIL_CHARACTERS);
      const lines = (line + chunk).split(/\r?\n/);
      line = lines.pop() ?? '';
      for (const whole of lines) onLine(whole);
      if (line.length < MAX_LINE_CHARACTERS) return;
      onLine(line);
      line = '';
    });
    stream.on('end', () => {
      if (line) onLine(line);
    });
  }
}
