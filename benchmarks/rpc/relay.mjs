// A relay in front of a server, which holds each direction's bytes back for `delayMs`.
import * as testing from '@splitlearn/comm/testing';

export async function serve(target, { delayMs }) {
  if (!testing.FaultRelay) throw new Error('@splitlearn/comm/testing has no FaultRelay');
  const relay = new testing.FaultRelay(target, { delayMs });
  return { address: await relay.start(), close: () => relay.close() };
}
