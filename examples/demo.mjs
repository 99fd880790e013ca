// The main job from end to end, offline: a server with a real GPT-2, and a client that talks to it over gRPC.
//   pnpm demo [--prompt "In the beginning"]
import { parseArgs } from 'node:util';
import { tensor } from '@splitlearn/comm';
import { ManagedClient, ManagedServer } from '@splitlearn/manager';

const { values } = parseArgs({ options: { prompt: { type: 'string', default: 'In the beginning' } } });
const startedMs = performance.now();

const server = new ManagedServer('tiny-gpt2', { port: 0 });
const port = await server.start();
const client = new ManagedClient(`127.0.0.1:${port}`);
try {
  await demo();
} catch (error) {
  console.error(`\n\n${error.message}`);
  process.exitCode = 1;
} finally {
  await client.close();
  await server.stop();
}

async function demo() {
  console.log(`\n1. tiny-gpt2 is served on 127.0.0.1:${port}, ready after ${seconds(performance.now() - startedMs)}\n`);

  process.stdout.write(`2. It goes on from a prompt, token by token:\n\n   ${values.prompt}`);
  const { tokens, firstMs, ms } = await generate(values.prompt);
  console.log(`\n\n   ${tokens} tokens in ${seconds(ms)}, the first after ${milliseconds(firstMs)}\n`);

  console.log('3. The same network without a tokenizer: named tensors in, named tensors out\n');
  await server.loadModel({ modelId: 'tiny-gpt2-onnx', source: 'tiny-gpt2', engine: 'onnx' });
  await runRawOnnx();

  console.log('\n4. What the server knows of itself\n');
  const { models, requestsByModel } = server.getStatus();
  table(
    ['model', 'engine', 'state', 'process', 'loaded in', 'memory', 'requests', 'p50', 'p99'],
    models.map(({ modelId, engine, state, pid, loadMs, memoryBytes }) => {
      const { requests, latencyMs } = requestsByModel[modelId];
      const latency = [milliseconds(latencyMs.p50), milliseconds(latencyMs.p99)];
      return [modelId, engine, state, pid, milliseconds(loadMs), mebibytes(memoryBytes), requests, ...latency];
    }),
  );

  console.log('\n5. Unloading gives the memory back, because each model has a process of its own\n');
  for (const { modelId } of models) {
    const { reclaimedBytes, durationMs } = await server.unloadModel(modelId);
    console.log(`   ${modelId}: ${reclaimedBytes.toLocaleString('en')} bytes came back in ${milliseconds(durationMs)}`);
  }
  console.log();
}

async function generate(prompt) {
  const sampling = { temperature: 0.8, topK: 40, seed: 1337 };
  const beganMs = performance.now();
  let tokens = 0;
  let firstMs = 0;
  for await (const piece of client.generate(prompt, { maxNewTokens: 60, ...sampling })) {
    if (tokens++ === 0) firstMs = performance.now() - beganMs;
    process.stdout.write(piece.text.replaceAll('\n', '\n   '));
  }
  return { tokens, firstMs, ms: performance.now() - beganMs };
}

/** Each run is told all that came before by its past, the KV cache: empty for the first run, what came out after. */
async function runRawOnnx() {
  const ids = [40n, 77n, 259n, 954n, 262n, 813n]; // 'In the beginning'
  const inputs = {
    input_ids: tensor(new BigInt64Array(ids), [1, ids.length]),
    attention_mask: tensor(new BigInt64Array(ids.length).fill(1n), [1, ids.length]),
    position_ids: tensor(BigInt64Array.from(ids.keys(), BigInt), [1, ids.length]),
  };
  for (let layer = 0; layer < 4; layer++) {
    for (const part of ['key', 'value']) {
      inputs[`past_key_values.${layer}.${part}`] = tensor(new Float32Array(0), [1, 4, 0, 32]);
    }
  }
  const call = { model: 'tiny-gpt2-onnx', outputs: ['logits', 'present.0.key'] };
  await client.compute(inputs, call); // the first run of a session plans its memory
  const { outputs, timing } = await client.computeWithTiming(inputs, call);
  for (const name of ['input_ids', 'past_key_values.0.key']) print('in ', name, inputs[name]);
  for (const [name, output] of Object.entries(outputs)) print('out', name, output);
  const { totalMs, queueMs, computeMs } = timing;
  const wireMs = totalMs - queueMs - computeMs;
  console.log(
    `\n   ${milliseconds(totalMs)} = queue ${milliseconds(queueMs)} + compute ${milliseconds(computeMs)} + wire ${milliseconds(wireMs)}`,
  );
}

function print(direction, name, { dtype, shape }) {
  console.log(`   ${direction}  ${name.padEnd(22)} ${dtype.padEnd(8)} [${shape.join(', ')}]`);
}

function table(header, rows) {
  const lines = [header, ...rows].map((row) => row.map(String));
  const widths = header.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  for (const line of lines)
    console.log(
      `   ${line
        .map((cell, column) => cell.padEnd(widths[column]))
        .join('  ')
        .trimEnd()}`,
    );
}

function seconds(ms) {
  return `${(ms / 1000).toFixed(2)} s`;
}

function milliseconds(ms) {
  return `${ms.toFixed(ms < 10 ? 2 : 0)} ms`;
}

function mebibytes(bytes) {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
