import type { Argument, Command, Option } from 'commander';
import { CATALOG } from '../sources/catalog.js';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

/** What a shell offers at one place: words, files, or nothing it could know. */
interface Values {
  readonly words: readonly string[];
  readonly files: boolean;
}

interface Described {
  readonly text: string;
  readonly about: string;
}

interface Flag {
  /** `--json`, `-w`. */
  readonly names: readonly string[];
  readonly about: string;
  /** Absent for one that takes no value. */
  readonly values?: Values;
}

interface CommandShape {
  readonly name: string;
  readonly about: string;
  readonly flags: readonly Flag[];
  /** For what is neither a command nor an option. */
  readonly values: Values;
}

/** A script for a shell, made from the commands as they are. It starts no program while somebody types. */
export function completionScript(program: Command, shell: Shell): string {
  const global = program.options.map(toFlag);
  const help: Flag = { names: ['--help', '-h'], about: 'help' };
  const commands = program.commands.map(
    (command): CommandShape => ({
      name: command.name(),
      about: command.summary() || command.description(),
      flags: [...command.options.map(toFlag), ...global, help],
      values: valuesOf(command.registeredArguments),
    }),
  );
  return { bash, zsh, fish }[shell](program.name(), commands, [...global, help]);
}

function toFlag(option: Option): Flag {
  const names = [option.long, option.short].filter((name): name is string => typeof name === 'string');
  const about = option.description;
  if (!option.required && !option.optional) return { names, about };
  return { names, about, values: { words: option.argChoices ?? [], files: /<file>/.test(option.flags) } };
}

function valuesOf([first]: readonly Argument[]): Values {
  if (!first) return { words: [], files: false };
  if (first.argChoices) return { words: first.argChoices, files: false };
  return first.name() === 'model' ? { words: [...CATALOG.keys()], files: true } : { words: [], files: false };
}

function bash(name: string, commands: readonly CommandShape[], global: readonly Flag[]): string {
  const options = (flags: readonly Flag[]) => flags.flatMap(({ names }) => names).join(' ');
  const cases = commands.flatMap(({ name: command, flags, values }) => [
    `    ${command})`,
    '      case "$previous" in',
    ...flags.flatMap((flag) =>
      flag.values ? [`        ${flag.names.join('|')}) ${offer(flag.values.words, flag.values.files)}; return ;;`] : [],
    ),
    '      esac',
    `      if [[ "$current" == -* ]]; then ${offer([options(flags)], false)}`,
    `      else ${offer(values.words, values.files)}; fi`,
    '      ;;',
  ]);
  return `# bash completion for ${name}. Use it with: source <(${name} completion bash)
_${name}() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="" command="" word
  if ((COMP_CWORD > 0)); then previous="\${COMP_WORDS[COMP_CWORD - 1]}"; fi
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    if [[ "$word" != -* ]]; then command="$word"; break; fi
  done
  COMPREPLY=()
  case "$command" in
    '')
      ${offer([...commands.map((command) => command.name), options(global)], false)}
      ;;
${cases.join('\n')}
  esac
}
complete -o filenames -F _${name} ${name}
`;
}

/** As bash 3.2, which macOS has, can do it too. */
function offer(words: readonly string[], files: boolean): string {
  const known = `COMPREPLY=($(compgen -W ${quote(words.join(' '))} -- "$current"))`;
  return files ? `${known}; local IFS=$'\\n'; COMPREPLY+=($(compgen -f -- "$current"))` : known;
}

function zsh(name: string, commands: readonly CommandShape[], global: readonly Flag[]): string {
  const plain = (text: string) => text.replace(/[[\]:]/g, ' ');
  const specification = (flag: Flag) =>
    flag.names.map(
      (one) => `      ${quote(`${one}[${plain(flag.about)}]${flag.values ? `:value:${action(flag.values)}` : ''}`)}`,
    );
  const list = commands.map((command) => `    ${quote(`${command.name}:${command.about}`)}`);
  const cases = commands.map(({ name: command, flags, values }) =>
    [
      `    ${command}) _arguments \\`,
      ...flags.flatMap(specification).map((line) => `${line} \\`),
      `      ${quote(`*:value:${action(values)}`)} ;;`,
    ].join('\n'),
  );
  return `#compdef ${name}
# zsh completion for ${name}. Use it with: source <(${name} completion zsh)
_${name}() {
  local -a commands
  commands=(
${list.join('\n')}
  )
  if (( CURRENT == 2 )); then
    if [[ $words[CURRENT] == -* ]]; then
      _arguments \\
${global.flatMap(specification).join(' \\\n')}
    else
      _describe -t commands command commands
    fi
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
  esac
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _${name} "$@"; else compdef _${name} ${name}; fi
`;
}

function action({ words, files }: Values): string {
  if (files) return words.length > 0 ? `{_files; compadd -- ${words.join(' ')}}` : '_files';
  return words.length > 0 ? `(${words.join(' ')})` : ' ';
}

function fish(name: string, commands: readonly CommandShape[], global: readonly Flag[]): string {
  const flagLines = (flags: readonly Flag[], condition: string) =>
    flags.map(({ names, about, values }) => {
      const parts = names.map((one) => (one.startsWith('--') ? `-l ${one.slice(2)}` : `-s ${one.slice(1)}`));
      if (values) parts.push('-r', values.files ? '-F' : '-f');
      if (values && values.words.length > 0) parts.push(`-a ${quote(values.words.join(' '))}`);
      return line(condition, ...parts, `-d ${quote(about)}`);
    });
  const line = (condition: string, ...parts: readonly string[]) =>
    [`complete -c ${name}`, ...(condition ? [`-n ${quote(condition)}`] : []), ...parts].join(' ');
  const words = (described: readonly Described[], condition: string) =>
    described.map(({ text, about }) => line(condition, `-a ${quote(text)}`, ...(about ? [`-d ${quote(about)}`] : [])));
  const none = '__fish_use_subcommand';
  return `${[
    `# fish completion for ${name}. Use it with: ${name} completion fish > ~/.config/fish/completions/${name}.fish`,
    line('', '-f'),
    ...words(
      commands.map((command) => ({ text: command.name, about: command.about })),
      none,
    ),
    ...flagLines(global, none),
    ...commands.flatMap(({ name: command, flags, values }) => {
      const here = `__fish_seen_subcommand_from ${command}`;
      return [
        ...flagLines(flags, here),
        ...(values.files ? [line(here, '-F')] : []),
        ...words(
          values.words.map((text) => ({ text, about: '' })),
          here,
        ),
      ];
    }),
  ].join('\n')}\n`;
}

/** As one word of any of these shells. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
