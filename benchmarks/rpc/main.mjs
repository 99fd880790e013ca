// One peer's server or client, in a process of its own. It is told what to do and answers in lines of JSON:
//   node main.mjs serve PEER LISTEN OPTIONS      says {address}, and serves until its input ends
//   node main.mjs connect PEER ADDRESS OPTIONS   says {}, then answers each load (see load.mjs) with how it went
// grpcio.py is the same for Python.
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { drive } from './load.mjs';

const [role, peer, address, options] = process.argv.slice(2);
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const input = createInterface({ input: process.stdin });

try {
  const { serve, connect } = await import(`./${peer}.mjs`);
  const end = once(input, 'close');
  if (role === 'serve') {
    const server = await serve(address, JSON.parse(options));
    say({ address: server.address });
    await end;
    await server.close();
  } else {
    const client = await connect(address, JSON.parse(options));
    input.on('line', async (line) => say(await drive(client.echo, JSON.parse(line)).catch(failure)));
    say({});
    await end;
    await client.close();
  }
} catch (error) {
  say(failure(error));
}
process.exit();

function failure(error) {
  return { error: `${error.message ?? error}` };
}
