import { randomUUID } from 'node:crypto';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AsyncGRPCComputeServer,
  type ComputeFunction,
  GRPCComputeClient,
  type Tensor,
  type Tensors,
  tensor,
} from '@splitlearn/comm';
import { loopback } from '@splitlearn/comm/testing';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allBits, tensor as anyTensor, bits, canonical, parameters, tensors } from './support/arbitraries.js';
import { collect } from './support/deferred.js';

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

describe.each(['TCP', 'a unix socket'])('over %s', (transport) => {
  let server: AsyncGRPCComputeServer;
  let client: GRPCComputeClient;

  beforeAll(async () => {
    const path = `unix:${join(tmpdir(), `splitlearn-${randomUUID()}.sock`)}`;
    const where = transport === 'TCP' ? { port: 0 } : { address: path };
    server = new AsyncGRPCComputeServer({ computeFn: recordingEcho, ...where });
    const port = await server.start();
    if (transport !== 'TCP') expect(port).toBe(0);
    client = new GRPCComputeClient(transport === 'TCP' ? `127.0.0.1:${port}` : path);
  });
  afterAll(async () => {
    await client.close();
    await server.stop();
  });

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
});

it('large tensors survive being cut into many packets', async () => {
  await using pair = await loopback(recordingEcho);
  const data = Float64Array.from({ length: 1_500_000 }, (_, index) => Math.sin(index));
  const output = (await pair.client.compute(tensor(data, [1_000, 1_500]))) as Tensor<'float64'>;
  expect(output.shape).toEqual([1_000, 1_500]);
  expect(
    Buffer.compare(
      Buffer.from(output.data.buffer, output.data.byteOffset, output.data.byteLength),
      Buffer.from(data.buffer),
    ),
  ).toBe(0);
});

it('a received tensor may be changed without anyone noticing', async () => {
  await using pair = await loopback({
    async compute({ inputs }) {
      (inputs.input as Tensor<'float32'>).data.fill(7);
      return { outputs: inputs };
    },
  });
  const input = tensor([1, 2, 3]);
  expect((await pair.client.compute(input)).data).toEqual(Float32Array.of(7, 7, 7));
  expect(input.data).toEqual(Float32Array.of(1, 2, 3));
});
