import { createInterface } from 'node:readline/promises';
import type { Answer } from './answer.js';
import type { Cli } from './cli.js';
import { EXIT, type ExitCode } from './exit-codes.js';
import { CliError, describeFailure } from './failures.js';

const PROMPT = '>>> ';
const HISTORY = 200;

/**
 * Asks for prompts and shows the answers, until the end of the input (Ctrl-D) or `/bye`. Each prompt is a text of its
 * own. Ctrl-C ends an answer, and a second one, with nothing entered in between, the program.
 */
export async function converse(answer: Answer, cli: Cli): Promise<ExitCode> {
  const { environment, err } = cli;
  err.line(err.style.dim('Write the beginning of a text. Ctrl-C ends an answer, Ctrl-D or /bye the program.'));
  let interruptedBefore = false;
  let history: string[] = [];
  for (;;) {
    const asked = await ask(cli, history);
    history = asked.history;
    if (asked.type === 'end') return EXIT.OK;
    if (asked.type !== 'line') {
      if (interruptedBefore) return EXIT.INTERRUPTED;
      interruptedBefore = true;
      err.line(err.style.dim('Ctrl-C once more ends the program.'));
      continue;
    }
    interruptedBefore = false;
    const prompt = asked.line.trimEnd();
    if (prompt === '/bye') return EXIT.OK;
    if (prompt === '') continue;

    const controller = new AbortController();
    const ignore = environment.onSignal('SIGINT', () => {
      controller.abort(new CliError(EXIT.INTERRUPTED, 'INTERRUPTED', 'interrupted'));
    });
    try {
      await answer.give(prompt, controller.signal);
    } catch (error) {
      // A prompt that is too long, or a model whose process has ended, is no reason to end the conversation.
      if (!controller.signal.aborted) err.line(err.style.red(describeFailure(error).message));
      interruptedBefore = controller.signal.aborted;
    } finally {
      ignore();
    }
  }
}

type Asked =
  | { readonly type: 'line'; readonly line: string; readonly history: string[] }
  | { readonly type: 'interrupt' | 'end'; readonly history: string[] };

/** One line. The terminal is the program's only while it is asked for, so that Ctrl-C is a signal during an answer. */
async function ask({ environment }: Cli, history: readonly string[]): Promise<Asked> {
  const lines = createInterface({
    input: environment.stdin,
    output: environment.stdout as NodeJS.WritableStream,
    terminal: true,
    history: [...history],
    historySize: HISTORY,
  });
  let kept = [...history];
  lines.on('history', (entries: string[]) => (kept = [...entries]));
  try {
    return await new Promise<Asked>((resolve) => {
      lines.once('SIGINT', () => {
        environment.stdout.write('\n');
        resolve({ type: 'interrupt', history: kept });
      });
      lines.once('close', () => resolve({ type: 'end', history: kept }));
      lines.once('line', (line) => resolve({ type: 'line', line, history: kept }));
      lines.setPrompt(PROMPT);
      lines.prompt();
    });
  } finally {
    lines.close();
  }
}
