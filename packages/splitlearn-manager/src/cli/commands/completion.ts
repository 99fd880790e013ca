import { Argument, type Command } from 'commander';
import type { Start } from '../cli.js';
import { completionScript, SHELLS, type Shell } from '../completion-scripts.js';

export function registerCompletion(program: Command, start: Start): void {
  program
    .command('completion')
    .summary('a script that completes the commands in a shell')
    .description(
      [
        'Prints a script that completes commands, options and names of the catalogue.',
        '',
        '  bash  source <(splitlearn completion bash)                 in ~/.bashrc',
        '  zsh   source <(splitlearn completion zsh)                  in ~/.zshrc, after compinit',
        '  fish  splitlearn completion fish > ~/.config/fish/completions/splitlearn.fish',
      ].join('\n'),
    )
    .addArgument(new Argument('<shell>', 'which shell').choices(SHELLS))
    .action((shell: Shell) => start(async (cli) => completion(shell, program, cli)));
}

export function completion(shell: Shell, program: Command, { out, json }: Parameters<Parameters<Start>[0]>[0]): void {
  const script = completionScript(program, shell);
  if (json) out.json({ shell, script });
  else out.write(script);
}
