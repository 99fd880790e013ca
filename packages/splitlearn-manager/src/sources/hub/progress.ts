import type { Clock } from '../clock.js';
import type { HubFile } from './hub-api.js';

/** How far a download is. */
export interface DownloadProgress {
  /** The repository of the hub: `org/name`. */
  readonly repository: string;
  readonly commit: string;
  /** The file that something was received of, by its path in the repository. */
  readonly file: string;
  /** Bytes of that file that are there, those of an earlier download included. */
  readonly fileBytes: number;
  /** Size of that file in bytes. */
  readonly fileTotalBytes: number;
  /** Bytes that are there of all files that are being downloaded. Goes back where a damaged file is fetched again. */
  readonly bytes: number;
  /** Size in bytes of all files that are being downloaded; those that the cache had do not count. */
  readonly totalBytes: number;
  /** How many files are complete. */
  readonly filesDone: number;
  /** How many files are being downloaded. */
  readonly files: number;
}

export type ReportProgress = (progress: DownloadProgress) => void;

/** Milliseconds between two reports; the first and the end of each file are always told. */
const INTERVAL_MS = 100;

/** Adds up what comes in, and tells of it now and then. */
export class ProgressReporter {
  readonly #repository: string;
  readonly #commit: string;
  readonly #clock: Clock;
  readonly #report: ReportProgress | undefined;
  readonly #bytes = new Map<HubFile, number>();
  readonly #totalBytes: number;
  #filesDone = 0;
  #reportedMs = Number.NEGATIVE_INFINITY;

  constructor(
    repository: string,
    commit: string,
    files: readonly HubFile[],
    clock: Clock,
    report: ReportProgress | undefined,
  ) {
    this.#repository = repository;
    this.#commit = commit;
    this.#clock = clock;
    this.#report = report;
    for (const file of files) this.#bytes.set(file, 0);
    this.#totalBytes = files.reduce((sum, { size }) => sum + size, 0);
  }

  received(file: HubFile, bytes: number): void {
    this.#bytes.set(file, bytes);
    if (this.#clock.now() - this.#reportedMs >= INTERVAL_MS) this.#tell(file);
  }

  finished(file: HubFile): void {
    this.#bytes.set(file, file.size);
    this.#filesDone += 1;
    this.#tell(file);
  }

  #tell(file: HubFile): void {
    this.#reportedMs = this.#clock.now();
    this.#report?.({
      repository: this.#repository,
      commit: this.#commit,
      file: file.path,
      fileBytes: this.#bytes.get(file) ?? 0,
      fileTotalBytes: file.size,
      bytes: [...this.#bytes.values()].reduce((sum, each) => sum + each, 0),
      totalBytes: this.#totalBytes,
      filesDone: this.#filesDone,
      files: this.#bytes.size,
    });
  }
}
