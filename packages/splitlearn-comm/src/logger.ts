/** Where a server says what no caller is told. `console` and pino are loggers. */
export interface Logger {
  warn(message: string): void;
  error(message: string): void;
}
