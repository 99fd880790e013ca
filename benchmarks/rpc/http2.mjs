// node:http2 without gRPC: one stream a request, with windows as one sets them for large messages.
import { once } from 'node:events';
import { createServer, connect as openSession } from 'node:http2';
import { asBytes, asFloat32 } from './tensors.mjs';

const WINDOW_BYTES = 4 * 2 ** 20; // much larger ones can deadlock two peers that both send much
const settings = { initialWindowSize: WINDOW_BYTES };

export async function serve(listen) {
  const [host, port] = listen.split(':');
  const server = createServer({ settings });
  server.on('session', (session) => session.setLocalWindowSize(WINDOW_BYTES));
  server.on('stream', async (stream, headers) => {
    const tensor = await receive(stream, headers);
    stream.respond({ 'content-length': tensor.byteLength });
    stream.end(asBytes(tensor));
  });
  server.listen({ host, port: Number(port) });
  await once(server, 'listening');
  return { address: `${host}:${server.address().port}`, close: () => server.close() };
}

export async function connect(address) {
  const session = openSession(`http://${address}`, { settings });
  await once(session, 'connect');
  session.setLocalWindowSize(WINDOW_BYTES);
  return {
    async echo(tensor) {
      const stream = session.request({ ':method': 'POST', 'content-length': tensor.byteLength });
      stream.end(asBytes(tensor));
      const [headers] = await once(stream, 'response');
      return receive(stream, headers);
    },
    close: () => session.close(),
  };
}

async function receive(stream, headers) {
  const bytes = Buffer.allocUnsafeSlow(Number(headers['content-length']));
  let filled = 0;
  stream.on('data', (chunk) => {
    filled += chunk.copy(bytes, filled);
  });
  await once(stream, 'end');
  if (filled !== bytes.length) throw new Error(`${filled} bytes came of ${bytes.length}`);
  return asFloat32(bytes);
}
