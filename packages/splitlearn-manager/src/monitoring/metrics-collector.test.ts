import { describe, expect, it } from 'vitest';
import { MetricsCollector } from './metrics-collector.js';

/** The value of a sample in Prometheus' text, by its name and labels. */
async function sample(metrics: MetricsCollector, name: string): Promise<number | undefined> {
  const line = (await metrics.metrics()).split('\n').find((text) => text.startsWith(`${name} `));
  return line === undefined ? undefined : Number(line.slice(name.length + 1));
}

async function* yieldAll<T>(items: readonly T[], error?: Error): AsyncGenerator<T, void> {
  yield* items;
  if (error) throw error;
}

async function readAll<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

describe('requests', () => {
  it('are counted by model and outcome', async () => {
    const metrics = new MetricsCollector();
    metrics.recordInferenceRequest('a', 0.002, true);
    metrics.recordInferenceRequest('a', 0.004, true);
    metrics.recordInferenceRequest('a', 9, false);
    metrics.recordInferenceRequest('b', 1, false);
    const { a, b } = metrics.getStatistics().requestsByModel;
    expect(a).toMatchObject({ requests: 3, succeeded: 2, failed: 1 });
    expect(b).toMatchObject({ requests: 1, succeeded: 0, failed: 1, latencyMs: { mean: 0, p50: 0, p95: 0, p99: 0 } });
    expect(await sample(metrics, 'splitlearn_request_duration_seconds_count{model="a",outcome="success"}')).toBe(2);
    expect(await sample(metrics, 'splitlearn_request_duration_seconds_count{model="a",outcome="error"}')).toBe(1);
    expect(await sample(metrics, 'splitlearn_request_duration_seconds_sum{model="a",outcome="success"}')).toBeCloseTo(
      0.006,
    );
    expect(
      await sample(metrics, 'splitlearn_request_duration_seconds_bucket{le="0.0025",model="a",outcome="success"}'),
    ).toBe(1);
  });

  it('have the latency of those that succeeded', () => {
    const metrics = new MetricsCollector();
    for (let ms = 1; ms <= 100; ms++) metrics.recordInferenceRequest('a', ms / 1000, true);
    metrics.recordInferenceRequest('a', 60, false);
    const { latencyMs } = metrics.getStatistics().requestsByModel.a ?? expect.fail('a was not counted');
    expect(latencyMs.mean).toBeCloseTo(50.5, 0);
    expect(latencyMs.p50).toBeCloseTo(50, 0);
    expect(latencyMs.p95).toBeCloseTo(95, 0);
    expect(latencyMs.p99).toBeCloseTo(99, 0);
  });

  it('of models with odd names harm nobody', async () => {
    const metrics = new MetricsCollector();
    const names = ['__proto__', 'constructor', 'a"b\\c\nd'];
    for (const name of names) metrics.recordInferenceRequest(name, 1, true);
    expect(Object.keys(metrics.getStatistics().requestsByModel)).toEqual(names);
    expect(await metrics.metrics()).toContain('model="a\\"b\\\\c\\nd"');
  });

  it('are not there before the first', async () => {
    const metrics = new MetricsCollector();
    expect(metrics.getStatistics()).toEqual({ requestsByModel: {} });
    expect(await metrics.metrics()).toContain('# TYPE splitlearn_request_duration_seconds histogram');
  });

  it('of one collector are not those of another', () => {
    new MetricsCollector().recordInferenceRequest('a', 1, true);
    expect(new MetricsCollector().getStatistics()).toEqual({ requestsByModel: {} });
  });
});

describe('measuring', () => {
  it('hands on the result and counts a success', async () => {
    const metrics = new MetricsCollector();
    expect(await metrics.measure('a', async () => 'result')).toBe('result');
    expect(metrics.getStatistics().requestsByModel.a).toMatchObject({ succeeded: 1, failed: 0 });
  });

  it('hands on the error and counts a failure', async () => {
    const metrics = new MetricsCollector();
    const error = new Error('refused');
    await expect(metrics.measure('a', () => Promise.reject(error))).rejects.toBe(error);
    expect(metrics.getStatistics().requestsByModel.a).toMatchObject({ succeeded: 0, failed: 1 });
  });

  it('takes a stream for one request', async () => {
    const metrics = new MetricsCollector();
    expect(await readAll(metrics.measureStream('a', yieldAll([1, 2, 3])))).toEqual([1, 2, 3]);
    expect(metrics.getStatistics().requestsByModel.a).toMatchObject({ requests: 1, succeeded: 1 });
  });

  it('counts a stream that fails half way as a failure, and hands on what came first', async () => {
    const metrics = new MetricsCollector();
    const seen: number[] = [];
    const read = async () => {
      for await (const item of metrics.measureStream('a', yieldAll([1, 2], new Error('crashed')))) seen.push(item);
    };
    await expect(read()).rejects.toThrow('crashed');
    expect(seen).toEqual([1, 2]);
    expect(metrics.getStatistics().requestsByModel.a).toMatchObject({ requests: 1, failed: 1 });
  });

  it('counts a stream that its reader leaves, and ends it', async () => {
    const metrics = new MetricsCollector();
    let ended = false;
    async function* endless() {
      try {
        for (;;) yield 1;
      } finally {
        ended = true;
      }
    }
    for await (const _ of metrics.measureStream('a', endless())) break;
    expect(ended).toBe(true);
    expect(metrics.getStatistics().requestsByModel.a).toMatchObject({ requests: 1, failed: 1 });
  });
});

describe('loads and unloads', () => {
  it('are in the text for Prometheus', async () => {
    const metrics = new MetricsCollector();
    metrics.recordModelLoad('a', 0.3, true);
    metrics.recordModelLoad('a', 0.2, false);
    metrics.recordModelUnload('a');
    metrics.recordModelUnload('a');
    expect(await sample(metrics, 'splitlearn_model_load_duration_seconds_count{model="a",outcome="success"}')).toBe(1);
    expect(await sample(metrics, 'splitlearn_model_load_duration_seconds_count{model="a",outcome="error"}')).toBe(1);
    expect(await sample(metrics, 'splitlearn_model_unloads_total{model="a"}')).toBe(2);
    const text = await metrics.metrics();
    for (const name of ['splitlearn_model_load_duration_seconds', 'splitlearn_model_unloads_total']) {
      expect(text).toMatch(new RegExp(`^# HELP ${name} .`, 'm'));
    }
  });
});
