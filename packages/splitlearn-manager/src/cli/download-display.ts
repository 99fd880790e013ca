import type { SingleBar } from 'cli-progress';
import type { DownloadProgress } from '../sources/hub/progress.js';
import type { Cli } from './cli.js';
import { formatBytes, oneLine } from './format.js';

/** Shows how far a download is. */
interface DownloadDisplay {
  show(progress: DownloadProgress): void;
  /** Takes the bar away, or ends its line. */
  end(): void;
}

/** Without a terminal a line is written when so much more of the whole is there. */
const LINE_EVERY_PERCENT = 10;
/** … and after so long in any case. */
const LINE_EVERY_MS = 30_000;

/** A bar on a terminal, a line now and then elsewhere, one document a line with `--json`. All on standard error. */
export function downloadDisplay(cli: Cli): DownloadDisplay {
  if (cli.json) return { show: (progress) => cli.err.jsonLine({ type: 'download', ...progress }), end() {} };
  return cli.err.isTerminal ? barDisplay(cli) : lineDisplay(cli);
}

function lineDisplay({ err, environment }: Cli): DownloadDisplay {
  let toldPercent = Number.NEGATIVE_INFINITY;
  let toldMs = Number.NEGATIVE_INFINITY;
  return {
    show({ repository, bytes, totalBytes, filesDone, files }) {
      const percent = totalBytes === 0 ? 100 : Math.floor((bytes / totalBytes) * 100);
      const nowMs = environment.elapsedMs();
      const isLast = filesDone === files && toldPercent < 100;
      if (!isLast && percent < toldPercent + LINE_EVERY_PERCENT && nowMs < toldMs + LINE_EVERY_MS) return;
      if (percent <= toldPercent) return;
      toldPercent = percent;
      toldMs = nowMs;
      const size = `${formatBytes(bytes)} of ${formatBytes(totalBytes)}`;
      err.line(`${oneLine(repository)}: ${percent} % (${size}, ${filesDone} of ${files} files)`);
    },
    end() {},
  };
}

function barDisplay({ err, environment }: Cli): DownloadDisplay {
  const startedMs = environment.elapsedMs();
  let firstBytes = 0;
  let latest: DownloadProgress | undefined;
  let bar: SingleBar | undefined;
  let ended = false;
  const tokens = ({ bytes, totalBytes, file }: DownloadProgress) => {
    const seconds = Math.max(0.1, (environment.elapsedMs() - startedMs) / 1000);
    const speed = `${formatBytes(Math.max(0, bytes - firstBytes) / seconds)}/s`;
    return { size: `${formatBytes(bytes)} of ${formatBytes(totalBytes)}`, speed, file: oneLine(file) };
  };
  const begin = async () => {
    // Loaded only where there is something to show: most starts of the program have nothing.
    const { default: progress } = await import('cli-progress');
    if (ended || !latest) return;
    bar = new progress.SingleBar({
      stream: environment.stderr as NodeJS.WritableStream,
      format: `${err.style.cyan('{bar}')} {percentage} %  {size}  {speed}  ${err.style.dim('{file}')}`,
      barsize: 24,
      barCompleteChar: '█',
      barIncompleteChar: '░',
      hideCursor: true,
      gracefulExit: false, // Ctrl-C is handled by the command, which ends the bar
    });
    bar.start(latest.totalBytes, latest.bytes, tokens(latest));
  };
  return {
    show(progress) {
      const isFirst = latest === undefined;
      latest = progress;
      if (isFirst) {
        firstBytes = progress.bytes;
        void begin();
      }
      bar?.update(progress.bytes, tokens(progress));
    },
    end() {
      ended = true;
      bar?.stop();
    },
  };
}
