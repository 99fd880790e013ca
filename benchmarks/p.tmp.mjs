import { fork } from 'node:child_process';
import { AsyncGRPCComputeServer, AsyncLambdaComputeFunction, GRPCComputeClient, tensor } from '@splitlearn/comm';

if (process.argv[2] === 'server') {
  const s = new AsyncGRPCComputeServer({
    computeFn: new AsyncLambdaComputeFunction(({ input }) => ({ output: input })),
    port: 0,
  });
  process.send(await s.start());
  process.on('disconnect', () => process.exit());
} else {
  const child = fork(new URL(import.meta.url).pathname, ['server'], {
    execArgv: process.env.TR ? process.env.TR.split(' ') : process.env.PROF_S ? ['--cpu-prof', '--cpu-prof-dir=/tmp/proto/prof'] : [],
  });
  const port = await new Promise((r) => child.once('message', r));
  const c = new GRPCComputeClient(`127.0.0.1:${port}`);
  async function bench(size, n, par) {
    const x = tensor(new Float32Array(size / 4));
    const go = async (n, lat) => {
      let left = n;
      await Promise.all(
        Array.from({ length: par }, async () => {
          while (left-- > 0) {
            const s = performance.now();
            await c.compute(x);
            lat?.push(performance.now() - s);
          }
        }),
      );
    };
    await go(Math.min(n, par * 20 + Math.min(3000, n)));
    const lat = [];
    const t = performance.now();
    await go(n, lat);
    const el = performance.now() - t;
    lat.sort((a, b) => a - b);
    console.log(
      size,
      par,
      'p50',
      lat[lat.length >> 1].toFixed(3),
      'p99',
      lat[(lat.length * 0.99) | 0].toFixed(2),
      'req/s',
      ((n / el) * 1000).toFixed(0),
      'MB/s',
      ((n * size) / el / 1000).toFixed(0),
    );
  }
  const W = process.env.WORK;
  if (!W || W == '3k1') await bench(3072, 8000, 1);
  if (!W || W == '3k32') await bench(3072, 60000, 32);
  if (!W || W == '3k128') await bench(3072, 60000, 128);
  if (!W || W == '393k1') await bench(393216, 1500, 1);
  if (!W || W == '393k4') await bench(393216, 1500, 4);
  if (!W || W == '16m') await bench(16 << 20, 40, 1);
  if (W == '128m') await bench(128 << 20, 4, 1);
  child.disconnect();
  await c.close();
  if (process.env.PROF_S) await new Promise((r) => child.once('exit', r));
  process.exit();
}
