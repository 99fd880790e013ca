import type { Http2Stream, ServerHttp2Session } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import { type Tensor, tensor } from '@splitlearn/comm';
import { loopback } from '@splitlearn/comm/testing';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import * as internals from '../dist/grpc/internals.js';
import { collect } from './support/deferred.js';
import { echo } from './support/functions.js';

vi.mock('../dist/grpc/internals.js', { spy: true });

// Whether all that leans on what grpc-js keeps to itself is where it was, and that calls work without it as well.

const { findHttp2Stream, findListeners, setConnectionWindow, setStreamWindow, writtenInPlace } = vi.mocked(internals);
const WINDOW_BYTES = 16 * 1024 * 1024;
const input = tensor(Float64Array.from({ length: 40_000 }, (_, index) => index));

beforeEach(() => {
  vi.resetAllMocks();
});

/** Calls and sessions of all sizes over a connection. */
async function expectCallsToWork(options: Parameters<typeof loopback>[1] = {}): Promise<void> {
  await using pair = await loopback(echo, options);
  expect(await pair.client.compute(input)).toEqual(input);
  expect(await pair.client.compute(tensor([1]))).toEqual(tensor([1]));
  const inputs = { input };
  expect(await collect(pair.client.stream([{ inputs }, { inputs: {} }]))).toMatchObject([{ outputs: inputs }, {}]);
}

/** The streams of an Exchange that is just open: the server's, and the client's. */
function takenOver(): [Http2Stream, Http2Stream] {
  const [server, client] = findHttp2Stream.mock.results.map(({ value }) => value as Http2Stream);
  return [server as Http2Stream, client as Http2Stream];
}

describe('grpc-js', () => {
  it('has the HTTP/2 stream of an Exchange where it is looked for, on both sides', async () => {
    await using pair = await loopback(echo);
    await pair.client.connect();
    expect(takenOver().map((stream) => stream.constructor.name)).toEqual(['ServerHttp2Stream', 'ClientHttp2Stream']);
  });

  it('lets the windows be raised, of streams and connections, on both sides', async () => {
    await using pair = await loopback(echo);
    await pair.client.connect();
    for (const { session } of takenOver()) {
      expect(session?.localSettings.initialWindowSize).toBe(WINDOW_BYTES);
      expect(session?.remoteSettings.initialWindowSize).toBe(WINDOW_BYTES);
      expect(session?.state.effectiveLocalWindowSize).toBeGreaterThanOrEqual(WINDOW_BYTES);
    }
    const [server] = takenOver();
    expect(server.session?.localSettings.maxFrameSize).toBe(1024 * 1024);
  });

  it('lets the windows of a client without Exchange as they are, where nothing keeps two peers from a deadlock', async () => {
    await using pair = await loopback(echo, { client: { exchange: false } });
    await pair.client.compute(tensor([1]));
    const session = setConnectionWindow.mock.calls[0]?.[0];
    expect(session?.remoteSettings.initialWindowSize).toBe(65_535);
    expect(session?.localSettings.initialWindowSize).toBe(WINDOW_BYTES);
  });

  it('writes an answer that is no buffer, straight from its tensors', async () => {
    await using pair = await loopback(echo, { client: { exchange: false } });
    const output = (await pair.client.compute(input)) as Tensor<'float64'>;
    expect(output).toEqual(input);
    expect(writtenInPlace).toHaveBeenCalledOnce();
  });
});

describe('calls work', () => {
  const notFound = () => undefined;

  it('where the server does not find its HTTP/2 stream', async () => {
    findHttp2Stream.mockImplementationOnce(notFound);
    await expectCallsToWork();
    const [server, client] = takenOver();
    expect([server, client.constructor.name]).toEqual([undefined, 'ClientHttp2Stream']);
  });

  it('where the client does not find its HTTP/2 stream', async () => {
    const found = await vi.importActual<typeof internals>('../dist/grpc/internals.js');
    findHttp2Stream.mockImplementationOnce((call) => found.findHttp2Stream(call)).mockImplementationOnce(notFound);
    await expectCallsToWork();
    const [server, client] = takenOver();
    expect([server.constructor.name, client]).toEqual(['ServerHttp2Stream', undefined]);
  });

  it('where nothing at all is found', async () => {
    findHttp2Stream.mockImplementation(notFound);
    findListeners.mockImplementation(() => []);
    setStreamWindow.mockImplementation(() => false);
    await expectCallsToWork();
    await expectCallsToWork({ client: { exchange: false } });
    expect(setConnectionWindow).not.toHaveBeenCalled();
  });
});

describe('of an object that is not as expected', () => {
  const strange = { call: { nextCall: { stream: {} } }, http2Stream: 1, http2Servers: {} };
  Object.assign(strange.call, { call: strange });

  it.each([{}, strange])('nothing is taken, and nothing is changed', (object) => {
    const before = Object.keys(object);
    expect(internals.findHttp2Stream(object)).toBe(undefined);
    expect(internals.findListeners(object as unknown as Server)).toEqual([]);
    expect(internals.setStreamWindow(object as unknown as Server, 1)).toBe(false);
    expect(Object.keys(object)).toEqual(before);
  });

  it('nor of a connection that is gone', () => {
    internals.setConnectionWindow(undefined, 1);
    internals.setConnectionWindow({ destroyed: true } as ServerHttp2Session, 1);
  });
});
