// The traces of requests through a real server, with its models in processes of their own.
import { context, SpanStatusCode, trace } from '@opentelemetry/api';
import type { ReadableSpan } from '@opentelemetry/sdk-trace-base';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { commFailure, identity, readAll, type Served, serve, someTensors, watchProcesses } from './support/managed.js';
import { type RecordedSpans, recordSpans, timesOf } from './support/tracing.js';

watchProcesses();

let served: Served;
beforeAll(async () => {
  served = await serve([identity, 'tiny-gpt2']);
});
afterAll(() => served.close());

let spans: RecordedSpans;
beforeEach(() => {
  spans = recordSpans();
});
afterEach(() => spans.stop());

/** Runs some work within a span, as a program that is traced does. */
async function withinSpan<T>(work: () => Promise<T>): Promise<{ result: T; traceId: string; spanId: string }> {
  const span = trace.getTracer('test').startSpan('caller');
  const result = await context.with(trace.setSpan(context.active(), span), work);
  span.end();
  return { result, ...span.spanContext() };
}

const parentOf = (span: ReadableSpan) => span.parentSpanContext?.spanId;
const idOf = (span: ReadableSpan) => span.spanContext().spanId;

/** Spans that are one within the other, the outermost first. */
function expectNested(...chain: ReadableSpan[]): void {
  for (const [i, inner] of chain.entries()) {
    const { startMs, endMs } = timesOf(inner);
    expect(endMs).toBeGreaterThanOrEqual(startMs);
    const outer = chain[i - 1];
    if (!outer) continue;
    expect(parentOf(inner)).toBe(idOf(outer));
    expect(startMs).toBeGreaterThanOrEqual(timesOf(outer).startMs);
    expect(endMs).toBeLessThanOrEqual(timesOf(outer).endMs);
  }
}

function expectInOrder(...steps: ReadableSpan[]): void {
  for (const [i, step] of steps.entries()) {
    const before = steps[i - 1];
    if (before) expect(timesOf(step).startMs).toBeGreaterThanOrEqual(timesOf(before).endMs);
  }
}

describe('the trace of a request', () => {
  it("goes on with its caller's: lease, then the runner with queue and computing, each in its time", async () => {
    const { traceId, spanId } = await withinSpan(() =>
      served.client.compute(someTensors, { model: 'identity', requestId: 'r1' }),
    );
    const [request, lease, runner, queue, compute] = [
      ...(['splitlearn.request', 'lease', 'runner', 'queue', 'compute'] as const),
    ].map((name) => spans.named(name)) as [ReadableSpan, ReadableSpan, ReadableSpan, ReadableSpan, ReadableSpan];
    expect(new Set(spans.all().map((span) => span.spanContext().traceId))).toEqual(new Set([traceId]));
    expect(parentOf(request)).toBe(spanId);
    expectNested(request, lease);
    expectNested(request, runner, queue);
    // Where the model takes requests in batches, the batch is in between.
    const batches = spans.all().filter(({ name }) => name === 'batch');
    expectNested(request, runner, ...batches, compute);
    expectInOrder(lease, runner);
    expectInOrder(queue, compute);
    expect(request.attributes).toMatchObject({
      ...{ 'splitlearn.model': 'identity', 'splitlearn.request_id': 'r1', 'splitlearn.code': 'OK' },
    });
  });

  it('of a text that is streamed has its first token within its computing', async () => {
    const { traceId } = await withinSpan(() =>
      readAll(served.client.generate('Once', { model: 'tiny-gpt2', maxNewTokens: 8 })),
    );
    const [runner, compute] = [spans.named('runner'), spans.named('compute')];
    expect(compute.spanContext().traceId).toBe(traceId);
    expectNested(spans.named('splitlearn.request'), runner);
    const [event] = compute.events;
    const { startMs, endMs } = timesOf(compute);
    const tokenMs = (event?.time[0] ?? 0) * 1e3 + (event?.time[1] ?? 0) / 1e6;
    expect(event?.name).toBe('first_token');
    expect(tokenMs).toBeGreaterThan(startMs);
    expect(tokenMs).toBeLessThanOrEqual(endMs);
  });

  it('that fails is marked, with its code, where it failed', async () => {
    await withinSpan(() =>
      commFailure(served.client.compute({ wrong: someTensors.x as never }, { model: 'identity' })),
    );
    for (const name of ['splitlearn.request', 'runner']) {
      const { status, attributes } = spans.named(name);
      expect(status.code).toBe(SpanStatusCode.ERROR);
      expect(attributes['error.type']).toBe('INVALID_INPUT');
    }
    await withinSpan(() => commFailure(served.client.compute(someTensors, { model: 'made up' })));
    const last = spans.all().filter(({ name }) => name === 'splitlearn.request')[1];
    expect(last?.status.code).toBe(SpanStatusCode.ERROR);
    expect(last?.attributes['error.type']).toBe('MODEL_NOT_FOUND');
  });

  it('that nobody else traces begins with the server', async () => {
    await served.client.compute(someTensors, { model: 'identity' });
    expect(parentOf(spans.named('splitlearn.request'))).toBeUndefined();
  });
});
