import { EXIT } from './exit-codes.js';
import { CliError } from './failures.js';

/** A line that never ends would take all memory. */
const MAX_LINE_CHARACTERS = 1_000_000;

/** The documents of a stream, one a line (https://github.com/ndjson/ndjson-spec). */
export async function* jsonLines(body: ReadableStream<Uint8Array>): AsyncGenerator<unknown, void> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const bytes of body) {
    rest += decoder.decode(bytes, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line.trim() !== '') yield parse(line);
    if (rest.length > MAX_LINE_CHARACTERS) throw broken();
  }
  if (rest.trim() !== '') yield parse(rest);
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    throw broken();
  }
}

function broken(): CliError {
  return new CliError(EXIT.FAILED, 'BROKEN_ANSWER', 'the server answered with what is not one JSON document a line');
}
