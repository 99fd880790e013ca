// What is compared, at which work.

const KB = 2 ** 10;
const MB = 2 ** 20;

/** Each variant: the file of its server and of its client (the same by default), and what they are asked for. */
export const VARIANTS = {
  'raw TCP': { server: 'raw' },
  'raw unix': { server: 'raw', unix: true },
  'node:http2': { server: 'http2' },
  'proto-loader': { server: 'proto-loader' },
  'proto-loader, stream': { server: 'proto-loader', options: { stream: true } },
  'nice-grpc': { server: 'nice-grpc' },
  Python: { server: 'grpcio' },
  'Python, stream': { server: 'grpcio', options: { stream: true } },
  comm: { server: 'comm' },
  'comm unix': { server: 'comm', unix: true },
  'comm, unary': { server: 'comm', options: { unary: true } },
  'comm unix, unary': { server: 'comm', unix: true, options: { unary: true } },
  'Python to comm': { server: 'comm', client: 'grpcio' },
};

const ONE_LANGUAGE = Object.keys(VARIANTS).filter((name) => name !== 'Python to comm');
const OF_LARGE_TENSORS = ['raw TCP', 'node:http2', 'proto-loader', 'Python', 'comm', 'comm, unary'];
const OF_THE_FAR = ['proto-loader', 'Python', 'comm', 'comm, unary'];

/**
 * Works that share their processes. A load is `{ bytes, inFlight, calls, ms }`: at least so many calls and so long.
 * `leadInMs`: so long a load is on before it is measured, as processes that were idle begin slowly.
 * `fresh`: new processes each round, so that each has a memory peak of its own and none keeps its memory meanwhile.
 */
export const GROUPS = [
  {
    variants: ONE_LANGUAGE,
    warmUp: [
      { bytes: 3 * KB, inFlight: 32, calls: 5_000 },
      { bytes: 393_216, inFlight: 4, calls: 100 },
    ],
    leadInMs: 100,
    works: {
      '3 KB, 1 in flight': { bytes: 3 * KB, inFlight: 1, ms: 400 },
      '3 KB, 32 in flight': { bytes: 3 * KB, inFlight: 32, ms: 400 },
      '3 KB, 128 in flight': { bytes: 3 * KB, inFlight: 128, ms: 400 },
      '393 KB, 1 in flight': { bytes: 393_216, inFlight: 1, ms: 400 },
      '393 KB, 4 in flight': { bytes: 393_216, inFlight: 4, ms: 400 },
    },
  },
  {
    variants: Object.keys(VARIANTS),
    warmUp: [
      { bytes: 3 * KB, inFlight: 32, calls: 1_000 },
      { bytes: 16 * MB, inFlight: 1, calls: 8 },
    ],
    leadInMs: 50,
    works: { '16 MB': { bytes: 16 * MB, inFlight: 1, calls: 5, ms: 600 } },
  },
  {
    variants: OF_LARGE_TENSORS,
    rounds: 3,
    fresh: true,
    warmUp: [{ bytes: 3 * KB, inFlight: 1, calls: 200 }],
    works: { '128 MB': { bytes: 128 * MB, inFlight: 1, calls: 3 } },
  },
  {
    variants: OF_THE_FAR,
    rounds: 3,
    delayMs: 25,
    warmUp: [{ bytes: 3 * KB, inFlight: 32, calls: 300 }],
    works: { '4 MB, 50 ms away': { bytes: 4 * MB, inFlight: 1, ms: 400 } },
  },
];
