import { Metadata } from '@grpc/grpc-js';
import { splitlearn } from '#proto';

import v1 = splitlearn.comm.v1;

// What both sides say of themselves before the first frame, in the metadata of the Exchange.

const KEY = 'splitlearn-hello-bin';

export function writeHello(hello: v1.IHello, metadata = new Metadata()): Metadata {
  metadata.set(KEY, Buffer.from(v1.Hello.encode(hello).finish()));
  return metadata;
}

/** @returns nothing of who said nothing, or nothing that can be understood. */
export function readHello(metadata: Metadata): v1.IHello {
  const [bytes] = metadata.get(KEY);
  if (!(bytes instanceof Uint8Array)) return {};
  try {
    return v1.Hello.decode(bytes);
  } catch {
    return {};
  }
}
