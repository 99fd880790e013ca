import { ManagerError } from '../../errors.js';
import { fileAddress, type HubFile } from './hub-api.js';
import { type RequestSubject, TransientFailure } from './hub-errors.js';
import { inParallel } from './in-parallel.js';
import { PartialFile, type RangeSink } from './partial-file.js';
import type { HubAnswer, HubRequests } from './requests.js';

/** How often a file is fetched before it is given up as damaged. */
const MAX_FETCHES = 3;
/** Bytes that may wait for the disk before no more is read, for each request. */
const MAX_BACKLOG = 2 ** 20;

export interface DownloadOptions {
  readonly subject: RequestSubject;
  readonly commit: string;
  readonly file: HubFile;
  /** Absolute path that the complete file gets. */
  readonly blob: string;
  readonly signal?: AbortSignal | undefined;
  /** Told how many bytes of the file are there. */
  readonly onBytes?: (bytes: number) => void;
}

/** The server answers with the whole file whatever range it is asked for. */
class RangesIgnored extends Error {}

/**
 * Fetches a file: in several ranges at once if it is large, from where an earlier download stopped, and again if what
 * came is not what the hub says it is.
 *
 * @throws ManagerError `SOURCE_CORRUPT` when it is not, again and again; `SOURCE_UNAVAILABLE` and what else a request
 * may meet; the signal's reason. What was received stays for the next time.
 */
export async function downloadFile(requests: HubRequests, options: DownloadOptions): Promise<void> {
  const { file, blob, subject } = options;
  let { rangeBytes } = requests.runtime;
  for (let fetches = 0; fetches < MAX_FETCHES; ) {
    const partial = await PartialFile.open(blob, file, rangeBytes);
    try {
      await fill(requests, options, partial);
    } catch (error) {
      await partial.close();
      if (!(error instanceof RangesIgnored)) throw error;
      await partial.discard();
      rangeBytes = file.size;
      continue;
    }
    if (await partial.complete()) return;
    fetches += 1;
  }
  throw new ManagerError(
    'SOURCE_CORRUPT',
    `the file '${file.path}' of '${subject.repository}' came ${MAX_FETCHES} times with other bytes than the hub says it ` +
      `has; a proxy between may change it, or the connection may be bad: try again, or over another network`,
  );
}

async function fill(requests: HubRequests, options: DownloadOptions, partial: PartialFile): Promise<void> {
  const { signal, onBytes, blob } = options;
  let bytes = await PartialFile.bytesOnDisk(blob);
  onBytes?.(bytes);
  const received = (more: number) => {
    bytes += more;
    onBytes?.(bytes);
  };
  await inParallel(partial.missingRanges(), requests.runtime.parallel, signal, async (start, either) => {
    const sink = await partial.sink(start);
    try {
      await fetchRange(requests, { ...options, signal: either }, { start, end: partial.endOf(start) }, sink, received);
    } finally {
      await sink.close();
    }
  });
}

async function fetchRange(
  requests: HubRequests,
  { subject: { endpoint, repository, revision }, commit, file, signal }: DownloadOptions,
  { start, end }: { readonly start: number; readonly end: number },
  sink: RangeSink,
  received: (bytes: number) => void,
): Promise<void> {
  const subject = { endpoint, repository, revision, file: file.path };
  const url = fileAddress(subject, commit, file.path);
  await requests.patiently({ subject, signal }, async (gotOn) => {
    if (sink.position >= end) return;
    const headers = { range: `bytes=${sink.position}-${end - 1}` };
    await requests.once(url, { subject, signal, headers }, async (answer) => {
      if (answer.status !== 206) {
        if (end - start !== file.size) throw new RangesIgnored();
        received(-sink.position);
        await sink.restart();
      } else if (answer.headers.get('content-range') !== `bytes ${sink.position}-${end - 1}/${file.size}`) {
        throw new TransientFailure('it answered with another range than was asked for');
      }
      await receive(answer, end, sink, (bytes) => {
        gotOn();
        received(bytes);
      });
    });
  });
}

/** Reads up to the end of the range and not a byte more, whatever the server goes on to send. */
async function receive(answer: HubAnswer, end: number, sink: RangeSink, received: (bytes: number) => void) {
  try {
    for await (const piece of answer.pieces) {
      const bytes = piece.subarray(0, end - sink.position);
      sink.write(bytes);
      received(bytes.byteLength);
      if (sink.position >= end) break;
      if (sink.backlog > MAX_BACKLOG) await sink.flush();
    }
  } finally {
    await sink.flush();
  }
  if (sink.position < end) throw new TransientFailure('the answer ended too early');
}
