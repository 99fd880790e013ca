// What benchmarks share: peers in processes of their own, percentiles, and what machine it was.
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { cpus } from 'node:os';
import { tensor } from '@splitlearn/comm';

/** Starts a server script, which tells its port by IPC, and ends when it is disconnected. */
export async function startServer(script, ...args) {
  const child = fork(new URL(script, import.meta.url), args);
  const [port] = await once(child, 'message');
  return {
    address: `127.0.0.1:${port}`,
    async stop() {
      const exit = once(child, 'exit');
      child.disconnect();
      await exit;
    },
  };
}

export function percentile(values, p) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * p) / 100))];
}

export function median(values) {
  return percentile(values, 50);
}

export function machine() {
  return `Node ${process.version}, ${cpus().length} × ${cpus()[0].model}, ${new Date().toISOString().slice(0, 10)}`;
}

/** Inputs for the raw tiny-gpt2: `batch` sequences of `length` tokens, nothing before them. */
export function tinyGpt2Inputs(batch, length) {
  const count = batch * length;
  const inputs = {
    input_ids: tensor(new BigInt64Array(count).fill(300n), [batch, length]),
    attention_mask: tensor(new BigInt64Array(count).fill(1n), [batch, length]),
    position_ids: tensor(
      BigInt64Array.from({ length: count }, (_, index) => BigInt(index % length)),
      [batch, length],
    ),
  };
  for (let layer = 0; layer < 4; layer++) {
    for (const part of ['key', 'value']) {
      inputs[`past_key_values.${layer}.${part}`] = tensor(new Float32Array(0), [batch, 4, 0, 32]);
    }
  }
  return inputs;
}
