// OpenTelemetry as a program would set it up, with the spans kept in memory.
import {
  type Context,
  context,
  propagation,
  type TextMapGetter,
  type TextMapPropagator,
  type TextMapSetter,
  trace,
} from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  type Sampler,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { expect } from 'vitest';

/** `traceparent` of https://www.w3.org/TR/trace-context/, as `@opentelemetry/core` has it. */
class TraceparentPropagator implements TextMapPropagator {
  inject(from: Context, carrier: unknown, setter: TextMapSetter): void {
    const span = trace.getSpanContext(from);
    if (!span) return;
    setter.set(carrier, 'traceparent', `00-${span.traceId}-${span.spanId}-0${span.traceFlags}`);
  }

  extract(into: Context, carrier: unknown, getter: TextMapGetter): Context {
    const [, traceId, spanId, flags] =
      /^00-(\w{32})-(\w{16})-0(\d)$/.exec(String(getter.get(carrier, 'traceparent'))) ?? [];
    if (!traceId || !spanId) return into;
    return trace.setSpanContext(into, { traceId, spanId, traceFlags: Number(flags), isRemote: true });
  }

  fields(): string[] {
    return ['traceparent'];
  }
}

export interface RecordedSpans {
  /** Those that have ended, in the order in which they began; of several, the inner ones last. */
  all(): ReadableSpan[];
  /** The only one of that name. */
  named(name: string): ReadableSpan;
  /** Takes all of it out again. */
  stop(): void;
}

/** Registers a tracer provider, a propagator and a context manager. */
export function recordSpans(sampler?: Sampler): RecordedSpans {
  const exporter = new InMemorySpanExporter();
  const spanProcessors = [new SimpleSpanProcessor(exporter)];
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors, ...(sampler && { sampler }) }));
  propagation.setGlobalPropagator(new TraceparentPropagator());
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  const all = () => exporter.getFinishedSpans();
  return {
    all,
    named: (name) => {
      const found = all().filter((span) => span.name === name);
      return found.length === 1 && found[0] ? found[0] : expect.fail(`there are ${found.length} spans '${name}'`);
    },
    stop: () => {
      trace.disable();
      propagation.disable();
      context.disable();
    },
  };
}

/** When a span began and ended, in milliseconds since the epoch. */
export function timesOf({ startTime, endTime }: ReadableSpan): { readonly startMs: number; readonly endMs: number } {
  const toMs = ([seconds, nanoseconds]: [number, number]) => seconds * 1e3 + nanoseconds / 1e6;
  return { startMs: toMs(startTime), endMs: toMs(endTime) };
}
