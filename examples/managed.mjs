// manager: one line serves a model, one line talks to it.
import { ManagedClient, ManagedServer } from '@splitlearn/manager';

const server = new ManagedServer('tiny-gpt2', { port: 0 });
const port = await server.start();

const client = new ManagedClient(`127.0.0.1:${port}`);
for await (const piece of client.generate('In the beginning', { maxNewTokens: 32 })) process.stdout.write(piece.text);
console.log();

await client.close();
await server.stop();
