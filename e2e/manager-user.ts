// A program of somebody who uses manager in TypeScript. packed-install.mjs compiles it against the packed types.
import { ManagedClient, ManagedServer } from '@splitlearn/manager';

const server = new ManagedServer('tiny-gpt2', { port: 0 });
const port: number = await server.start();
const client = new ManagedClient(`127.0.0.1:${port}`);
for await (const piece of client.generate('Once upon a time', { maxNewTokens: 8, temperature: 0 })) {
  const text: string = piece.text;
  console.log(text);
}
await client.close();
await server.stop();
