import { setImmediate } from 'node:timers/promises';
import { Metadata, type ServerDuplexStream } from '@grpc/grpc-js';

/**
 * The messages of a streaming call, to their end. A caller who goes away before that is an error, the signal's reason.
 */
export async function* sessionRequests(
  call: ServerDuplexStream<Uint8Array, Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void> {
  try {
    // destroyOnReturn would end the call, its answers included, when the compute function stops reading requests.
    for await (const message of call.iterator({ destroyOnReturn: false })) yield message as Uint8Array;
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  }
  // A caller in node that cancels ends its requests first, and takes the call back in the same breath: the end must not
  // be taken for a proper one. grpc-js notices when it is about to send something, and says 'cancelled' a tick later.
  await setImmediate();
  call.sendMetadata(new Metadata());
  await setImmediate();
  signal.throwIfAborted();
}
