/** What the program's end says to a script. Documented by `splitlearn --help`; a number never changes its meaning. */
export const EXIT = {
  OK: 0,
  FAILED: 1,
  USAGE: 2,
  NOT_FOUND: 3,
  UNREACHABLE: 4,
  DENIED: 5,
  NO_ROOM: 6,
  TIMED_OUT: 7,
  INTERRUPTED: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/** One line each, for `--help` and the README. */
export const EXIT_CODE_MEANINGS: readonly (readonly [ExitCode, string])[] = [
  [EXIT.OK, 'done'],
  [EXIT.FAILED, 'failed, and the message says why'],
  [EXIT.USAGE, 'wrong arguments, or a wrong configuration'],
  [EXIT.NOT_FOUND, 'no such model, or no such file'],
  [EXIT.UNREACHABLE, 'the server or the hub cannot be reached'],
  [EXIT.DENIED, 'not allowed: a token is missing or wrong'],
  [EXIT.NO_ROOM, 'no room: memory, disk, number of models, or a full queue'],
  [EXIT.TIMED_OUT, 'not done in time'],
  [EXIT.INTERRUPTED, 'ended by Ctrl-C'],
];
