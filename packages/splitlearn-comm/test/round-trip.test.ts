import { type ComputeFunction, type GRPCComputeClient, type Tensor, type Tensors, tensor } from '@splitlearn/comm';
import type { Loopback } from '@splitlearn/comm/testing';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { allBits, tensor as anyTensor, bits, canonical, parameters, tensors } from './support/arbitraries.js';
import { collect } from './support/deferred.js';
import { transports } from './support/transports.js';

vi.mock('../dist/grpc/internals.js', { spy: true });

/** What the server was given last. */
let received: Tensors = {};
let receivedParameters = '';

const recordingEcho: ComputeFunction = {
  async compute(request) {
    received = request.inputs;
    receivedParameters = canonical(request.parameters ?? {});
    return { outputs: request.inputs };
  },
};

describe.each(transports)('over $name', ({ loopback }) => {
  let pair: Loopback;
  let client: GRPCComputeClient;

  beforeAll(async () => {
    pair = await loopback(recordingEcho);
    client = pair.client;
  });
  afterAll(() => pair.close());

  it('tensors of all dtypes, shapes, bits and names arrive and come back bit for bit', async () => {
    await fc.assert(
      fc.asyncProperty(tensors, async (inputs) => {
        const before = allBits(inputs);
        const outputs = await client.compute(inputs);
        expect(allBits(received)).toEqual(before);
        expect(allBits(outputs)).toEqual(before);
        expect(allBits(inputs)).toEqual(before);
      }),
      { numRuns: 150 },
    );
  });

  it('one tensor arrives as input, and comes back as one tensor', async () => {
    await fc.assert(
      fc.asyncProperty(anyTensor, async (input) => {
        const output = await client.compute(input);
        expect(Object.keys(received)).toEqual(['input']);
        expect(bits(output)).toEqual(bits(input));
      }),
      { numRuns: 50 },
    );
  });

  it('tensors in a stream arrive and come back in their order, bit for bit', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(tensors, { maxLength: 5 }), async (session) => {
        const responses = await collect(client.stream(session.map((inputs) => ({ inputs }))));
        expect(responses.map(({ outputs }) => allBits(outputs))).toEqual(session.map(allBits));
      }),
      { numRuns: 40 },
    );
  });

  it('parameters arrive as the JSON that was sent', async () => {
    await fc.assert(
      fc.asyncProperty(parameters, async (sent) => {
        await client.compute({}, { parameters: sent });
        expect(receivedParameters).toBe(canonical(sent));
      }),
      { numRuns: 100 },
    );
  });

  it('a received tensor may be changed without anyone noticing', async () => {
    await using changing = await loopback({
      async compute({ inputs }) {
        (inputs.input as Tensor<'float32'>).data.fill(7);
        return { outputs: inputs };
      },
    });
    const input = tensor([1, 2, 3]);
    expect((await changing.client.compute(input)).data).toEqual(Float32Array.of(7, 7, 7));
    expect(input.data).toEqual(Float32Array.of(1, 2, 3));
  });
});
