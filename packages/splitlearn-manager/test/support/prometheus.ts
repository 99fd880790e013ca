// A real Prometheus, where there is one: tools/install-prometheus.sh installs Debian's.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

/** Why tests that need Prometheus are skipped, where it is not there. */
export const whyNoPrometheus = ['prometheus', 'promtool'].some((program) => spawnSync(program, ['--version']).error)
  ? 'skipped: there is no prometheus and promtool in PATH; tools/install-prometheus.sh installs them'
  : undefined;

/** What `promtool check metrics` has to say of a text; nothing where all is well. */
export function promtoolComplaints(metrics: string): string {
  const { stdout, stderr, status } = spawnSync('promtool', ['check', 'metrics'], { input: metrics, encoding: 'utf8' });
  return `${stdout}${stderr}${status === 0 ? '' : `it ended with ${status}`}`;
}

/** Serves a text over HTTP, as the admin server does. */
export async function serveText(read: () => Promise<{ text: string; contentType: string }>) {
  const server = createServer(async (_, response) => {
    const { text, contentType } = await read();
    response.setHeader('content-type', contentType).end(text);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const close = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return { target: `127.0.0.1:${(server.address() as AddressInfo).port}`, [Symbol.asyncDispose]: close };
}

export interface Prometheus extends AsyncDisposable {
  /** The values of a query by PromQL, with the labels of each. */
  query(promql: string): Promise<{ readonly labels: Record<string, string>; readonly value: number }[]>;
  /** The exemplars of a series. */
  exemplars(promql: string): Promise<Record<string, string>[]>;
}

/** Starts a Prometheus that asks some targets once a second. It takes five seconds until it begins. */
export async function startPrometheus(...targets: string[]): Promise<Prometheus> {
  const folder = mkdtempSync(join(tmpdir(), 'prometheus-'));
  const config = join(folder, 'prometheus.yml');
  const job = { job_name: 'splitlearn', static_configs: [{ targets }] };
  // JSON is YAML.
  const scrape = { scrape_interval: '1s', scrape_timeout: '1s' };
  writeFileSync(config, JSON.stringify({ global: scrape, scrape_configs: [job] }));
  const child = spawn(
    'prometheus',
    [
      ...[`--config.file=${config}`, `--storage.tsdb.path=${join(folder, 'data')}`],
      ...['--web.listen-address=127.0.0.1:0', '--enable-feature=exemplar-storage'],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const ended = once(child, 'exit');
  const address = await listeningAddress(child.stderr);
  const ask = async (path: string, query: string) => {
    const answer = await fetch(`http://${address}/api/v1/${path}?${new URLSearchParams({ query })}`);
    return (await answer.json()) as { data: never };
  };
  return {
    query: async (promql) => {
      type Result = { metric: Record<string, string>; value: [number, string] };
      const { data }: { data: { result: Result[] } } = await ask('query', promql);
      return data.result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
    },
    exemplars: async (promql) => {
      const { data }: { data: { exemplars: { labels: Record<string, string> }[] }[] } = await ask(
        'query_exemplars',
        promql,
      );
      return data.flatMap(({ exemplars }) => exemplars.map(({ labels }) => labels));
    },
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await ended;
      rmSync(folder, { recursive: true, maxRetries: 3 });
    },
  };
}

async function listeningAddress(log: NodeJS.ReadableStream): Promise<string> {
  const lines: string[] = [];
  for await (const line of createInterface({ input: log })) {
    const address = /Listening on".* address=([\d.]+:\d+)/.exec(line)?.[1];
    if (address === undefined) lines.push(line);
    else {
      // The rest is of no interest, but has to be read, or it would stand still.
      log.resume();
      return address;
    }
  }
  throw new Error(`prometheus has ended: ${lines.join('\n')}`);
}
