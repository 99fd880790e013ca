import type { Http2Server } from 'node:http2';
import type { Socket } from 'node:net';
import type { Server } from '@grpc/grpc-js';

/**
 * Follows the connections of a bound server, so that all of them can be closed by force. `forceShutdown` does not: where
 * `tryShutdown` has begun to close a connection, node only ends its own side and waits for the peer to do the same, for
 * ever where the peer is gone or never spoke HTTP/2. grpc-js keeps its listeners to itself, so they are looked up with care.
 */
export function trackSockets(server: Server): ReadonlySet<Socket> {
  const sockets = new Set<Socket>();
  const { http2Servers } = server as unknown as { readonly http2Servers?: ReadonlyMap<Http2Server, unknown> };
  for (const http2Server of http2Servers?.keys() ?? []) {
    http2Server.on('connection', (socket: Socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
    });
  }
  return sockets;
}
