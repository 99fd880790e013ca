// Sockets with nothing on top, TCP or unix: a length, then the tensor, received whole before it goes back.
import { once } from 'node:events';
import { connect as connectSocket, createServer } from 'node:net';
import { asBytes, asFloat32 } from './tensors.mjs';

const LENGTH_BYTES = 4;

export async function serve(listen) {
  const server = createServer({ noDelay: true }, (socket) => {
    receive(socket, (tensor) => send(socket, tensor));
  });
  server.listen(socketAddress(listen));
  await once(server, 'listening');
  const address = listen.startsWith('unix:') ? listen : `127.0.0.1:${server.address().port}`;
  return { address, close: () => server.close() };
}

export async function connect(address) {
  const socket = connectSocket({ ...socketAddress(address), noDelay: true });
  await once(socket, 'connect');
  const waiting = []; // answers come in the order of the requests
  receive(socket, (tensor) => waiting.shift()(tensor));
  return {
    echo(tensor) {
      send(socket, tensor);
      return new Promise((resolve) => waiting.push(resolve));
    },
    close: () => socket.end(),
  };
}

function socketAddress(address) {
  if (address.startsWith('unix:')) return { path: address.slice('unix:'.length) };
  const [host, port] = address.split(':');
  return { host, port: Number(port) };
}

function send(socket, tensor) {
  const length = Buffer.allocUnsafe(LENGTH_BYTES);
  length.writeUInt32LE(tensor.byteLength);
  socket.cork();
  socket.write(length);
  socket.write(asBytes(tensor));
  socket.uncork();
}

function receive(socket, onTensor) {
  const length = Buffer.alloc(LENGTH_BYTES);
  let target = length;
  let filled = 0;
  socket.on('data', (chunk) => {
    for (let read = 0; read < chunk.length; ) {
      const copied = chunk.copy(target, filled, read);
      read += copied;
      filled += copied;
      if (filled < target.length) continue;
      filled = 0;
      if (target === length) {
        target = Buffer.allocUnsafeSlow(length.readUInt32LE());
      } else {
        onTensor(asFloat32(target));
        target = length;
      }
    }
  });
}
