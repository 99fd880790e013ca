// Prints what was measured: `results[work][variant]` is a list with one entry a round, undefined where it failed.
import { median } from '../support.mjs';
import { TARGETS } from './targets.mjs';

const PEERS = ['raw TCP', 'proto-loader', 'Python'];
const FIGURES = {
  p50: 'p50',
  p99: 'p99',
  perSecond: 'requests/s',
  peakPayloads: 'server peak less idle, in payloads',
};

export function printResults(results) {
  const rows = [];
  for (const [work, variants] of Object.entries(results)) {
    for (const [variant, entries] of Object.entries(variants)) {
      const measured = ['p50', 'p99', 'perSecond', 'mbPerSecond'].map((figure) => middle(entries, figure));
      const against = PEERS.map((peer) => ratio(entries, variants[peer], 'perSecond'));
      rows.push([work, variant, ...[...measured, ...against, middle(entries, 'peakPayloads')].map(short)]);
    }
  }
  const ratios = PEERS.map((peer) => `× ${peer}`);
  printTable(['work', 'variant', 'p50 ms', 'p99 ms', 'requests/s', 'MB/s', ...ratios, 'server peak, payloads'], rows);
}

export function printTargets(results) {
  const rows = TARGETS.map((target) => {
    const { work, figure, variant = 'comm', against, over, floor, aim, less } = target;
    const rounds = results[work]?.[variant];
    const measured = against ? ratio(rounds, results[work]?.[against], figure) : middle(rounds, figure) / (over ?? 1);
    const unit = against ? ` × ${against}` : over ? ` / ${over} ms` : '';
    const sign = less ? '≤ ' : '≥ ';
    const holds = (limit) => (less ? measured <= limit : measured >= limit);
    const verdict = Number.isNaN(measured) ? 'not measured' : holds(aim) ? 'aim' : holds(floor) ? 'floor' : 'missed';
    const name = `${work}: ${variant} ${FIGURES[figure]}${unit}`;
    return [name, sign + short(floor), sign + short(aim), short(measured), verdict];
  });
  printTable(['target', 'floor', 'aim', 'measured', ''], rows);
}

/** The median of a figure; NaN where there is none. */
function middle(rounds, figure) {
  return medianOf(rounds?.map((round) => round?.[figure]));
}

/** The median of the ratios round by round, as only what was measured at the same time can be compared. */
function ratio(rounds, others, figure) {
  return medianOf(rounds?.map((round, index) => round?.[figure] / others?.[index]?.[figure]));
}

function medianOf(values = []) {
  return median(values.filter(Number.isFinite)) ?? Number.NaN;
}

export function short(value) {
  if (Number.isNaN(value)) return '–';
  if (value >= 100) return value.toFixed(0);
  return String(Number(value.toPrecision(value < 1 ? 2 : 3)));
}

export function printTable(head, rows) {
  const widths = head.map((_, column) => Math.max(...[head, ...rows].map((row) => row[column].length)));
  const rule = widths.map((width) => '-'.repeat(width));
  for (const row of [head, rule, ...rows]) {
    console.log(`| ${row.map((cell, column) => cell.padEnd(widths[column])).join(' | ')} |`);
  }
}
