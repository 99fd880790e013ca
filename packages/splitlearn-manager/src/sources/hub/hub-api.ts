import { z } from 'zod';
import { type RequestSubject, unavailable } from './hub-errors.js';
import { assertSafePath } from './repository-paths.js';
import { type HubRequests, readJson } from './requests.js';

/** The most bytes that one answer of the hub's interface may have. */
const MAX_ANSWER_BYTES = 16 * 2 ** 20;
/** The most files that a repository may have. */
const MAX_FILES = 100_000;

/** A file of a repository at one commit. */
export const HubFile = z.object({
  /** Relative to the repository, with `/`. */
  path: z.string(),
  /** In bytes. */
  size: z.int().min(0),
  /** The sha256 of what is kept in large-file storage, else git's id of the blob; the file's name in the cache. */
  etag: z.string().regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/),
});
export type HubFile = z.infer<typeof HubFile>;

const RevisionAnswer = z.object({ sha: z.string().regex(/^[0-9a-f]{40}$/) });
const TreeAnswer = z.array(
  z.object({
    type: z.string(),
    path: z.string(),
    oid: z.string(),
    size: z.int().min(0).optional(),
    lfs: z.object({ oid: z.string(), size: z.int().min(0) }).optional(),
  }),
);

/** What is asked of the hub, but for the files' own bytes. */
export class HubApi {
  readonly #requests: HubRequests;

  constructor(requests: HubRequests) {
    this.#requests = requests;
  }

  /**
   * The commit that a branch or a tag is at.
   *
   * @param attempts how many requests may fail. Default: those of the runtime.
   */
  async commitOf(subject: RequestSubject, signal?: AbortSignal, attempts?: number): Promise<string> {
    const { endpoint, repository, revision } = subject;
    const url = `${endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}`;
    const { body } = await this.#json(url, subject, signal, attempts);
    return check(RevisionAnswer, body, subject).sha;
  }

  /** All files of a commit; `attempts` as above. */
  async filesOf(subject: RequestSubject, commit: string, signal?: AbortSignal, attempts?: number): Promise<HubFile[]> {
    const { endpoint, repository } = subject;
    const files: HubFile[] = [];
    let url: string | undefined = `${endpoint}/api/models/${repository}/tree/${commit}?recursive=true`;
    const seen = new Set<string>();
    while (url !== undefined) {
      seen.add(url);
      const page: { body: unknown; next: string | undefined } = await this.#json(url, subject, signal, attempts);
      for (const { type, path, oid, size, lfs } of check(TreeAnswer, page.body, subject)) {
        if (type !== 'file') continue;
        assertSafePath(path, repository);
        files.push(check(HubFile, { path, size: lfs?.size ?? size, etag: lfs?.oid ?? oid }, subject));
      }
      if (files.length > MAX_FILES) throw unavailable(subject, new Error(`it has more than ${MAX_FILES} files`));
      url = page.next;
      if (url !== undefined && (seen.has(url) || new URL(url).origin !== new URL(endpoint).origin)) {
        throw unavailable(subject, new Error('the list of its files goes in circles, or on at another server'));
      }
    }
    return files;
  }

  #json(url: string, subject: RequestSubject, signal?: AbortSignal, attempts?: number) {
    const options = { subject, signal };
    const run = () =>
      this.#requests.once(url, options, async (answer) => ({
        body: await readJson(answer, subject, MAX_ANSWER_BYTES),
        next: nextPage(answer.headers.get('link'), url),
      }));
    return this.#requests.patiently(options, run, attempts);
  }
}

/** The address of a file's bytes. */
export function fileAddress({ endpoint, repository }: RequestSubject, commit: string, path: string): string {
  return `${endpoint}/${repository}/resolve/${commit}/${path.split('/').map(encodeURIComponent).join('/')}`;
}

function nextPage(link: string | null, base: string): string | undefined {
  const target = link?.match(/<([^>]+)>\s*;[^,]*\brel="?next"?/)?.[1];
  return target !== undefined && URL.canParse(target, base) ? new URL(target, base).href : undefined;
}

function check<Schema extends z.ZodType>(schema: Schema, value: unknown, subject: RequestSubject): z.output<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw unavailable(subject, new Error(`its answer is not understood: ${z.prettifyError(result.error).slice(0, 300)}`));
}
