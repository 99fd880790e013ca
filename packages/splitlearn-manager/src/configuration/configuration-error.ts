import { ManagerError } from '../errors.js';

/** One thing that is wrong with a configuration, and where. */
export interface ConfigurationIssue {
  /** Where the value is from, as it would be found: `splitlearn.yaml`, `SPLITLEARN_PORT`, `--port`. */
  readonly source: string;
  /** The line of the file, from 1. */
  readonly line?: number;
  /** The column of the file, from 1. */
  readonly column?: number;
  /** The field, such as `models[2].keepAliveMs`; empty where it is about the whole. */
  readonly field: string;
  /** What is wrong, and what is allowed. Never has a token in it. */
  readonly message: string;
}

/** All that is wrong with a configuration at once. Its code is `INVALID_CONFIG`. */
export class ConfigurationError extends ManagerError {
  readonly issues: readonly ConfigurationIssue[];

  constructor(issues: readonly ConfigurationIssue[]) {
    const lines = issues.map(issueToText);
    const message =
      lines.length === 1
        ? `the configuration is wrong: ${lines[0]}`
        : `the configuration is wrong in ${lines.length} places:\n${lines.map((line) => `  ${line}`).join('\n')}`;
    super('INVALID_CONFIG', message);
    this.name = 'ConfigurationError';
    this.issues = issues;
  }
}

/** `splitlearn.yaml:3:7 port must be …`: what editors and terminals make a link of. */
function issueToText({ source, line, column, field, message }: ConfigurationIssue): string {
  const place = line === undefined ? source : `${source}:${line}:${column}`;
  return field === '' ? `${place}: ${message}` : `${place}: ${field} ${message}`;
}
