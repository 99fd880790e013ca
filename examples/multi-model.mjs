// manager: several models behind one port; requests say which one they mean.
import { ManagedClient, ManagedServer } from '@splitlearn/manager';

const server = new ManagedServer(
  [
    { modelId: 'writer', source: 'tiny-gpt2' },
    { modelId: 'logits', source: 'tiny-gpt2', engine: 'onnx' },
  ],
  { port: 0 },
);
const port = await server.start();

const client = new ManagedClient(`127.0.0.1:${port}`);
for (const { name, state, inputs } of await client.listModels()) {
  console.log(`${name} is ${state} and takes ${inputs.map((input) => input.name).join(', ')}`);
}
const { text } = await client.infer('The king said', { model: 'writer', maxNewTokens: 16 });
console.log(`writer: The king said${text}`);

const { reclaimedBytes } = await server.unloadModel('writer');
console.log(`writer is gone, and ${reclaimedBytes > 0 ? 'so is its memory' : 'its memory is not'}`);

await client.close();
await server.stop();
