// What comm wants to reach. A floor is what it must hold; at most or at least, as `less` says.

const SMALL = '3 KB, 1 in flight';
const less = true;

export const TARGETS = [
  { work: SMALL, figure: 'p50', against: 'proto-loader', floor: 0.3, aim: 0.15, less },
  { work: SMALL, figure: 'p50', against: 'Python', floor: 0.3, aim: 0.15, less },
  ...['3 KB, 32 in flight', '3 KB, 128 in flight'].flatMap((work) => [
    { work, figure: 'perSecond', against: 'proto-loader', floor: 4, aim: 8 },
    { work, figure: 'perSecond', against: 'Python', floor: 4, aim: 7 },
    { work, figure: 'p99', against: 'Python', floor: 0.7, aim: 0.3, less },
  ]),
  ...['393 KB, 1 in flight', '393 KB, 4 in flight'].flatMap((work) => [
    { work, figure: 'perSecond', against: 'proto-loader', floor: 2.2, aim: 4.5 },
    { work, figure: 'perSecond', against: 'Python', floor: 1.8, aim: 3.5 },
  ]),
  { work: '16 MB', figure: 'perSecond', against: 'raw TCP', floor: 0.45, aim: 0.8 },
  { work: '16 MB', figure: 'perSecond', against: 'proto-loader', floor: 1.8, aim: 3 },
  { work: '16 MB', figure: 'perSecond', against: 'Python', floor: 1.6, aim: 2.5 },
  { work: '128 MB', figure: 'perSecond', against: 'raw TCP', floor: 0.45, aim: 0.75 },
  { work: '128 MB', figure: 'peakPayloads', floor: 2.6, aim: 2.2, less },
  { work: '4 MB, 50 ms away', figure: 'p50', over: 50, floor: 1.6, aim: 1.3, less },
  { work: '4 MB, 50 ms away', figure: 'p50', against: 'proto-loader', floor: 1 / 50, aim: 1 / 100, less },
  { work: SMALL, figure: 'p50', variant: 'comm unix', against: 'raw unix', floor: 2.5, aim: 1.5, less },
  { work: '393 KB, 1 in flight', figure: 'p50', variant: 'comm unix', against: 'raw unix', floor: 2.5, aim: 1.6, less },
  { work: '16 MB', figure: 'perSecond', variant: 'Python to comm', against: 'Python', floor: 1.3, aim: 1.7 },
];
