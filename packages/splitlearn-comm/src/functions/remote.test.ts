import { describe, expect, it, vi } from 'vitest';
import { collect, rejection } from '../../test/support/deferred.js';
import { GRPCComputeClient } from '../client/grpc-compute-client.js';
import { callContext } from '../compute-function.js';
import { tensor } from '../tensor.js';
import { RemoteComputeFunction } from './remote.js';

const request = { inputs: { x: tensor(1) } };
const response = { outputs: { y: tensor(2) } };

/** A client whose calls go nowhere. */
function fakeClient() {
  const client = new GRPCComputeClient('127.0.0.1:1');
  const call = vi.spyOn(client, 'call').mockResolvedValue(response);
  const stream = vi.spyOn(client, 'stream').mockImplementation(async function* () {
    yield response;
  });
  return { client, call, stream };
}

describe('RemoteComputeFunction', () => {
  it('passes on the signal, the id and the metadata of the call, but not its credentials', async () => {
    const { client, call } = fakeClient();
    const metadata = { 'x-tenant': 'a', authorization: 'Bearer secret' };
    const context = callContext({ requestId: 'r', metadata });
    expect(await new RemoteComputeFunction(client).compute(request, context)).toBe(response);
    expect(call).toHaveBeenCalledExactlyOnceWith(request, {
      signal: context.signal,
      requestId: 'r',
      metadata: { 'x-tenant': 'a' },
      timeoutMs: Number.POSITIVE_INFINITY,
    });
  });

  it('passes on what is left of the deadline', async () => {
    vi.useFakeTimers({ toFake: ['Date', 'setTimeout', 'clearTimeout'] });
    try {
      const { client, call, stream } = fakeClient();
      const remote = new RemoteComputeFunction(client);
      const context = callContext({ timeoutMs: 1_000 });
      vi.setSystemTime(Date.now() + 400);
      await remote.compute(request, context);
      expect(call).toHaveBeenLastCalledWith(request, expect.objectContaining({ timeoutMs: 600 }));
      vi.setSystemTime(Date.now() + 5_000);
      await collect(remote.stream(requests(), context));
      expect(stream).toHaveBeenLastCalledWith(expect.anything(), expect.objectContaining({ timeoutMs: 0 }));
    } finally {
      vi.useRealTimers();
    }
  });

  it('closes a client of its own, and leaves a client that it was given open', async () => {
    const { client, call } = fakeClient();
    const close = vi.spyOn(client, 'close');
    await new RemoteComputeFunction(client).teardown();
    expect(close).not.toHaveBeenCalled();
    const own = new RemoteComputeFunction('127.0.0.1:1');
    await own.teardown();
    expect(await rejection(own.compute(request, callContext()))).toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(call).not.toHaveBeenCalled();
  });

  it('is made of an address that is one', () => {
    expect(() => new RemoteComputeFunction('localhost')).toThrow("'localhost' is no address");
  });
});

async function* requests() {
  yield request;
}
