// How these benchmarks print what they measured.
import { printTable, short } from '../rpc/report.mjs';

export { short };

export function atMost(name, floor, measured) {
  return { name, floor, measured, less: true };
}

export function atLeast(name, floor, measured) {
  return { name, floor, measured, less: false };
}

export function mb(bytes) {
  return (bytes / 2 ** 20).toFixed(1);
}

export function percent(value) {
  return `${short(value)} %`;
}

export function printTables(tables) {
  for (const { title, head, rows } of tables) {
    console.log(title);
    printTable(head, rows);
    console.log();
  }
}

export function printTargets(targets) {
  const rows = targets.map(({ name, floor, measured, less }) => {
    const holds = less ? measured <= floor : measured >= floor;
    const verdict = Number.isNaN(measured) ? 'not measured' : holds ? 'reached' : 'missed';
    return [name, `${less ? '≤' : '≥'} ${short(floor)}`, exact(measured), verdict];
  });
  printTable(['target', 'floor', 'measured', ''], rows);
}

/** Three digits are too few for what is near its target. */
function exact(value) {
  return Number.isNaN(value) ? '–' : String(Number(value.toPrecision(4)));
}
