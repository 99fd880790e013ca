import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** What goes wrong with one answer. */
export interface Fault {
  /** Waits for the request for the range that begins here; several are under way at once, in no order. */
  readonly rangeStart?: number;
  /** Answers with this status. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Ends the connection after so many bytes of the body. */
  readonly cutAfter?: number;
  /** Sends nothing more after so many bytes of the body, and leaves the connection open. */
  readonly stallAfter?: number;
  /** Changes the byte at this place of the file, if the answer has it. */
  readonly flipAt?: number;
  /** Sends the whole file whatever is asked for. */
  readonly ignoreRange?: boolean;
  /** Sends so many bytes more than it says. */
  readonly extraBytes?: number;
}

export interface Seen {
  readonly path: string;
  readonly range: string | undefined;
  readonly authorization: string | undefined;
  readonly isCdn: boolean;
}

export interface LocalHubOptions {
  readonly repository?: string;
  /** Its branches and tags, and the commits that they are at. */
  readonly refs?: Readonly<Record<string, string>>;
  /** Entries on one page of the list of files. Default: all. */
  readonly pageSize?: number;
}

export const COMMIT = '0123456789abcdef0123456789abcdef01234567';

/** A hub on this machine: one repository, with large files on another port, and faults to order. */
export class LocalHub implements AsyncDisposable {
  readonly repository: string;
  readonly files: Map<string, Buffer>;
  readonly refs: Map<string, string>;
  /** The requests, in order. */
  readonly seen: Seen[] = [];
  /** Bytes of the body that were sent, by file. */
  readonly served = new Map<string, number>();
  /** What goes wrong with the next answers about a path of the repository, about `revision` or `tree`, or
   * about `<path> at the hub`, which sends on to where large files are. */
  readonly faults = new Map<string, Fault[]>();
  /** What the list of files says, where that is not the truth. */
  listing: ((entries: Record<string, unknown>[]) => unknown) | undefined;
  /** The address that the list's next page is said to be at. */
  nextPage: ((url: string) => string) | undefined;
  /** Called with each stall. */
  onStall = () => {};
  readonly #pageSize: number;
  #ports: readonly number[] = [];
  readonly #hub: Server;
  readonly #cdn: Server;

  private constructor(files: Readonly<Record<string, Buffer>>, options: LocalHubOptions) {
    this.repository = options.repository ?? 'org/name';
    this.files = new Map(Object.entries(files));
    this.refs = new Map(Object.entries(options.refs ?? { main: COMMIT }));
    this.#pageSize = options.pageSize ?? Number.POSITIVE_INFINITY;
    this.#hub = createServer((request, response) => this.#answer(request, response, false));
    this.#cdn = createServer((request, response) => this.#answer(request, response, true));
  }

  static async start(files: Readonly<Record<string, Buffer>>, options: LocalHubOptions = {}): Promise<LocalHub> {
    const hub = new LocalHub(files, options);
    hub.#ports = await Promise.all([listen(hub.#hub), listen(hub.#cdn)]);
    return hub;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#ports[0]}`;
  }

  /** Where large files are: another host, as far as a client can tell. */
  get cdnUrl(): string {
    return `http://localhost:${this.#ports[1]}`;
  }

  /** Orders faults for the next answers about something. */
  fail(path: string, ...faults: Fault[]): void {
    this.faults.set(path, [...(this.faults.get(path) ?? []), ...faults]);
  }

  get servedBytes(): number {
    return [...this.served.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  async close(): Promise<void> {
    await Promise.all([this.#hub, this.#cdn].map(close));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #answer(request: IncomingMessage, response: ServerResponse, isCdn: boolean): void {
    const url = new URL(request.url ?? '', this.url);
    const path = decodeURIComponent(url.pathname);
    const { range, authorization } = request.headers;
    this.seen.push({ path, range, authorization, isCdn });
    const api = `/api/models/${this.repository}/`;
    const resolve = `/${this.repository}/resolve/`;
    if (path.startsWith(`${api}revision/`)) this.#revision(response, path.slice(`${api}revision/`.length));
    else if (path.startsWith(`${api}tree/`)) this.#tree(response, url);
    else if (path.startsWith(resolve)) this.#file(request, response, path.slice(resolve.length + 41), isCdn);
    else json(response, 404, { error: 'Repository not found' }, { 'x-error-code': 'RepoNotFound' });
  }

  #revision(response: ServerResponse, revision: string): void {
    if (this.#refuse(response, this.#nextFault('revision'))) return;
    const sha = this.refs.get(revision);
    if (sha) json(response, 200, { sha, id: this.repository });
    else json(response, 404, { error: 'Invalid rev id' }, { 'x-error-code': 'RevisionNotFound' });
  }

  #tree(response: ServerResponse, url: URL): void {
    if (this.#refuse(response, this.#nextFault('tree'))) return;
    const honest = [...this.files].map(([path, bytes]) => ({ type: 'file', path, ...identify(path, bytes) }));
    const entries = [{ type: 'directory', path: 'onnx', oid: 'f'.repeat(40), size: 0 }, ...honest];
    const all = this.listing ? this.listing(entries) : entries;
    if (!Array.isArray(all)) {
      json(response, 200, all);
      return;
    }
    const from = Number(url.searchParams.get('cursor') ?? 0);
    const page = all.slice(from, from + this.#pageSize);
    const next = `${this.url}${url.pathname}?recursive=true&cursor=${from + page.length}`;
    const link = `<${this.nextPage?.(next) ?? next}>; rel="next"`;
    json(response, 200, page, from + page.length < all.length ? { link } : {});
  }

  #file(request: IncomingMessage, response: ServerResponse, path: string, isCdn: boolean): void {
    const content = this.files.get(path);
    if (!content) {
      json(response, 404, {}, { 'x-error-code': 'EntryNotFound' });
      return;
    }
    if (isLarge(path) && !isCdn) {
      if (this.#refuse(response, this.#nextFault(`${path} at the hub`))) return;
      const location = `${this.cdnUrl}${request.url}?signature=secret`;
      response.writeHead(302, { location }).end();
      return;
    }
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    const fault = this.#nextFault(path, Number(range?.[1] ?? 0));
    if (this.#refuse(response, fault)) return;
    const asked = fault?.ignoreRange ? null : range;
    const start = asked ? Number(asked[1]) : 0;
    const end = asked ? Number(asked[2]) + 1 : content.length;
    const body = Buffer.concat([content.subarray(start, end), Buffer.alloc(fault?.extraBytes ?? 0)]);
    const flip = (fault?.flipAt ?? -1) - start;
    if (flip >= 0 && flip < body.length) body[flip] = (body[flip] as number) ^ 0xff;
    response.writeHead(asked ? 206 : 200, {
      // One that says too little has no length at all: Node would not send more than it says.
      ...(fault?.extraBytes === undefined && { 'content-length': body.length }),
      ...(asked && { 'content-range': `bytes ${start}-${end - 1}/${content.length}` }),
    });
    const limit = fault?.cutAfter ?? fault?.stallAfter;
    const sent = limit === undefined ? body : body.subarray(0, limit);
    this.served.set(path, (this.served.get(path) ?? 0) + sent.length);
    if (limit === undefined) response.end(sent);
    else if (fault?.stallAfter !== undefined) response.write(sent, () => this.onStall());
    else response.write(sent, () => response.socket?.end());
    if (sent.length === 0) response.flushHeaders();
  }

  #nextFault(path: string, start = 0): Fault | undefined {
    const faults = this.faults.get(path) ?? [];
    const index = faults.findIndex(({ rangeStart }) => rangeStart === undefined || rangeStart === start);
    return index < 0 ? undefined : faults.splice(index, 1)[0];
  }

  #refuse(response: ServerResponse, fault: Fault | undefined): boolean {
    if (fault?.status === undefined) return false;
    json(response, fault.status, { error: 'ordered by the test' }, fault.headers);
    return true;
  }
}

/** As the hub has it: ONNX files in large-file storage under their sha256, others in git under their blob's id. */
export function identify(path: string, bytes: Buffer) {
  const oid = createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
  const lfs = { oid: sha256(bytes), size: bytes.length, pointerSize: 130 };
  return { oid, size: bytes.length, ...(isLarge(path) && { lfs }) };
}

/** The name of a file's blob in the cache. */
export function etagOf(path: string, bytes: Buffer): string {
  const { oid, lfs } = identify(path, bytes);
  return lfs?.oid ?? oid;
}

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function isLarge(path: string): boolean {
  return /\.onnx|_data/.test(path);
}

function json(response: ServerResponse, status: number, body: unknown, headers: Readonly<Record<string, string>> = {}) {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port));
  });
}

function close(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((resolve) => server.close(() => resolve()));
}
