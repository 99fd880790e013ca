import { monitorEventLoopDelay } from 'node:perf_hooks';
import { collectDefaultMetrics, Gauge, type Registry, type RegistryContentType } from 'prom-client';
import { type AnyRegistry, createRegistry } from './metrics-registry.js';

/** How often the event loop is looked at. What it takes longer than that is its delay. */
const RESOLUTION_MS = 10;

/** What was measured is forgotten at the first reading after this long, so that two readers see the same. */
const MIN_WINDOW_MS = 10_000;

/** What perf_hooks measures, in nanoseconds. */
interface LoopHistogram {
  readonly max: number;
  readonly count: number;
  percentile(percentile: number): number;
  reset(): void;
}

/** How long the event loop was kept from its work. */
export class EventLoopDelay {
  readonly #histogram: LoopHistogram;
  readonly #now: () => number;
  #sinceMs: number;

  constructor(/** @internal */ seams: { readonly histogram?: LoopHistogram; readonly now?: () => number } = {}) {
    this.#histogram = seams.histogram ?? startMonitor();
    this.#now = seams.now ?? (() => performance.now());
    this.#sinceMs = this.#now();
  }

  /** Since the last reading but one, or so; 0 where nothing has been measured. */
  read(): { readonly p50Ms: number; readonly p99Ms: number; readonly maxMs: number } {
    const histogram = this.#histogram;
    // The time between two looks is measured, of which the resolution is no delay.
    const delayMs = (nanoseconds: number) =>
      histogram.count === 0 ? 0 : Math.max(0, nanoseconds / 1e6 - RESOLUTION_MS);
    const p50Ms = delayMs(histogram.percentile(50));
    const p99Ms = delayMs(histogram.percentile(99));
    const maxMs = delayMs(histogram.max);
    if (this.#now() - this.#sinceMs >= MIN_WINDOW_MS) {
      this.#sinceMs = this.#now();
      histogram.reset();
    }
    return { p50Ms, p99Ms, maxMs };
  }
}

function startMonitor(): LoopHistogram {
  const histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  histogram.enable();
  return histogram;
}

/** What prom-client names as a counter but is none; the event loop's delay is measured without its resolution here. */
const NOT_OURS = /^nodejs_(eventloop_lag|active_)/;

const registries = new Map<RegistryContentType, AnyRegistry>();

/**
 * The metrics of this process: one for all collectors, because what measures them cannot be stopped, and made when they
 * are first asked for, because whoever never asks need not pay for it.
 */
export function processRegistry(contentType: RegistryContentType): AnyRegistry {
  const present = registries.get(contentType);
  if (present) return present;
  const registry = createRegistry(contentType);
  registries.set(contentType, registry);
  collectDefaultMetrics({ register: registry as Registry, eventLoopMonitoringPrecision: 60_000 });
  for (const { name } of registry.getMetricsAsArray()) {
    if (NOT_OURS.test(name)) registry.removeSingleMetric(name);
  }
  addEventLoopDelay(registry);
  return registry;
}

function addEventLoopDelay(registry: AnyRegistry): void {
  const delay = new EventLoopDelay();
  const registers = [registry];
  const gauge = (name: string, which: string, collect?: () => void) => {
    const help = `Time that the event loop was late: ${which} since it was last read.`;
    return new Gauge({ name, help, registers, ...(collect && { collect }) });
  };
  // The first one in the registry reads for all: when the others come to be written, they have to be what they are.
  const median = gauge('splitlearn_event_loop_delay_p50_seconds', 'the median', () => {
    const { p50Ms, p99Ms, maxMs } = delay.read();
    median.set(p50Ms / 1_000);
    most.set(p99Ms / 1_000);
    longest.set(maxMs / 1_000);
  });
  const most = gauge('splitlearn_event_loop_delay_p99_seconds', 'the 99th percentile');
  const longest = gauge('splitlearn_event_loop_delay_max_seconds', 'the longest');
}
