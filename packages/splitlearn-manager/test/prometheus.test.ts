// What Prometheus itself has to say of our metrics. They are of a server that has been through everything.
import { MetricsCollector } from '@splitlearn/manager';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commFailure, identity, readAll, type Served, serve, someTensors, watchProcesses } from './support/managed.js';
import { promtoolComplaints, serveText, startPrometheus, whyNoPrometheus } from './support/prometheus.js';

watchProcesses();

let served: Served;
beforeAll(async () => {
  served = await serve([identity, 'tiny-gpt2'], { maxModels: 1 });
  const { client } = served;
  // Each evicts the other.
  await client.compute(someTensors, { model: 'identity' });
  await client.infer('Once', { model: 'tiny-gpt2', maxNewTokens: 4 });
  await readAll(client.generate('Once', { model: 'tiny-gpt2', maxNewTokens: 4 }));
  await client.compute(someTensors, { model: 'identity' });
  await commFailure(client.compute({ y: someTensors.x as never }, { model: 'identity' }));
  await commFailure(client.compute(someTensors, { model: 'made up' }));
  await served.server.unloadModel('tiny-gpt2');
});
afterAll(() => served.close());

const metricsOf = async () => {
  const { metrics } = served.server;
  return { text: await metrics.metrics(), contentType: metrics.contentType };
};

const seconds = 'splitlearn_request_duration_seconds_bucket';
const traceId = '0af7651916cd43dd8448eb211c80319c';

/** The metrics of a collector with exemplars. */
async function exemplaryMetrics() {
  const metrics = new MetricsCollector({ exemplars: true });
  metrics.recordRequest({ modelId: 'traced', durationMs: 3, code: 'OK', traceId });
  return { text: await metrics.metrics(), contentType: metrics.contentType };
}

describe('the metrics of a server', () => {
  it('have all that has happened in them', async () => {
    const { text } = await metricsOf();
    for (const line of [
      'splitlearn_requests_total{model="identity",code="OK"} 2',
      'splitlearn_requests_total{model="tiny-gpt2",code="OK"} 2',
      'splitlearn_requests_total{model="identity",code="INVALID_INPUT"} 1',
      'splitlearn_requests_total{model="",code="MODEL_NOT_FOUND"} 1',
      'splitlearn_request_compute_seconds_count{model="identity"} 2',
      'splitlearn_generated_tokens_total{model="tiny-gpt2"} 8',
      'splitlearn_prompt_tokens_total{model="tiny-gpt2"}',
      'splitlearn_time_to_first_token_seconds_count{model="tiny-gpt2"} 1',
      'splitlearn_generation_tokens_per_second_count{model="tiny-gpt2"} 2',
      'splitlearn_model_evictions_total{model="tiny-gpt2",reason="max-models"} 1',
      'splitlearn_model_unloads_total{model="tiny-gpt2"} 1',
      'splitlearn_model_state{model="identity",state="READY"} 1',
      'splitlearn_model_info{model="identity",engine="onnx",',
      'splitlearn_memory_limit_bytes ',
      'splitlearn_server_calls_total{code="OK"} 4',
      'splitlearn_server_calls_total{code="NOT_FOUND"} 1',
    ]) {
      expect(text).toContain(`\n${line}`);
    }
    expect(text).not.toContain('made up');
    const value = (name: string) => Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1]);
    expect(value('splitlearn_model_memory_bytes{model="identity"}')).toBeGreaterThan(2 ** 20);
    expect(value('splitlearn_server_received_bytes_total')).toBeGreaterThan(0);
    expect(value('splitlearn_server_sent_bytes_total')).toBeGreaterThan(0);
  });
});

describe.skipIf(whyNoPrometheus !== undefined)('Prometheus', () => {
  it('has nothing to say against them: promtool check metrics is silent', async () => {
    expect(promtoolComplaints((await metricsOf()).text)).toBe('');
    expect(promtoolComplaints('requests_count 1\n')).toContain('no help text');
  });

  it('scrapes them, and knows what we know', async () => {
    await using endpoint = await serveText(metricsOf);
    await using openMetrics = await serveText(exemplaryMetrics);
    await using prometheus = await startPrometheus(endpoint.target, openMetrics.target);
    await expect.poll(() => prometheus.query('up')).toMatchObject([{ value: 1 }, { value: 1 }]);
    // A machine that is busy may miss the scrape after that.
    const known = expect.poll(async () => ({
      requests: await prometheus.query('sum by (model, code) (splitlearn_requests_total)'),
      ready: await prometheus.query('splitlearn_model_state == 1'),
      p99: await prometheus.query(`histogram_quantile(0.99, sum by (le) (${seconds}{model="identity"}))`),
      limit: await prometheus.query('splitlearn_memory_limit_bytes'),
      exemplars: await prometheus.exemplars(`${seconds}{model="traced"}`),
    }));
    await known.toEqual({
      requests: expect.arrayContaining([
        { labels: { model: 'identity', code: 'OK' }, value: 2 },
        { labels: { code: 'MODEL_NOT_FOUND' }, value: 1 },
      ]),
      ready: [expect.objectContaining({ labels: expect.objectContaining({ model: 'identity', state: 'READY' }) })],
      p99: [{ labels: {}, value: expect.any(Number) }],
      limit: [expect.objectContaining({ value: served.server.resourceManager.getCurrentUsage().memoryLimitBytes })],
      exemplars: [{ trace_id: traceId }],
    });
  });
});

it.runIf(whyNoPrometheus !== undefined)(`Prometheus was not asked: ${whyNoPrometheus}`, (context) => {
  context.skip(whyNoPrometheus);
});
