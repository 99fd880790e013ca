import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { allBits, canonical, parameters, tensors, text } from '../../test/support/arbitraries.js';
import { readRequest, readResponse, toMessage, toStruct } from '../../test/support/protobufjs-codec.js';
import { NoisyWriter, Random } from '../../test/support/wire-noise.js';
import type { ComputeRequest, JsonValue } from '../index.js';
import { decodeRequest, decodeResponse, encodeRequest, encodeResponse, toBytes } from './wire.js';

// Against protobufjs, in both directions, and against the specification.

import v1 = splitlearn.comm.v1;

const requests = fc.record({
  requestId: text,
  model: text,
  inputs: tensors,
  parameters: fc.option(parameters, { nil: undefined }),
  outputs: fc.array(text, { maxLength: 3 }),
  outputEncoding: fc.nat(20),
});
const ms = fc.double({ noNaN: true });
const responses = fc.record({
  requestId: text,
  model: text,
  outputs: tensors,
  timing: fc.record(
    { queueMs: ms, computeMs: ms, batchSize: fc.integer({ min: 1, max: 2 ** 32 - 1 }) },
    { requiredKeys: ['queueMs', 'computeMs'] },
  ),
  serverMs: ms,
});
const bases = fc.constantFrom<0 | 5>(0, 5);

interface Request extends ComputeRequest {
  readonly requestId: string;
  readonly outputEncoding: number;
}

/** In a form that two requests can be compared by. */
function plain({ request, requestId, outputEncoding }: ReturnType<typeof decodeRequest>) {
  const { model, inputs, outputs, parameters: given = {} } = request;
  return {
    requestId,
    model,
    inputs: allBits(inputs),
    outputs,
    parameters: canonical(given as JsonValue),
    outputEncoding,
  };
}

function plainResponse({ response, timing }: ReturnType<typeof decodeResponse>) {
  return { model: response.model, outputs: allBits(response.outputs), timing, nested: response.timing };
}

function toRequestMessage(original: Request): v1.IComputeRequest {
  const { requestId, model, inputs, parameters: given, outputs, outputEncoding } = original;
  return {
    requestId,
    model: model ?? '',
    inputs: Object.entries(inputs).map(([name, tensor]) => toMessage(name, tensor)),
    parameters: given ? toStruct(given) : null,
    outputs: [...(outputs ?? [])],
    outputEncoding,
  };
}

/** Bytes that a message was encoded to, with paddings checked and taken out. */
function withoutPadding(bytes: Uint8Array, type: 'ComputeRequest' | 'ComputeResponse'): Buffer {
  const message = v1[type].decode(bytes);
  for (const tensor of 'inputs' in message ? message.inputs : message.outputs) {
    expect(Buffer.from(tensor.padding ?? [])).toEqual(Buffer.alloc(tensor.padding?.length ?? 0));
    expect(tensor.padding?.length ?? 0).toBeLessThan(8);
    delete tensor.padding;
  }
  return Buffer.from(
    'inputs' in message ? v1.ComputeRequest.encode(message).finish() : v1.ComputeResponse.encode(message).finish(),
  );
}

describe('protobufjs and this codec', () => {
  it('write the same requests, but for the padding', () => {
    fc.assert(
      fc.property(requests, bases, ({ requestId, outputEncoding, ...request }, base) => {
        const given = { ...request, ...(request.parameters && { parameters: request.parameters }) } as ComputeRequest;
        const bytes = toBytes(encodeRequest(given, requestId, { base, outputEncoding }));
        const theirs = v1.ComputeRequest.encode(toRequestMessage({ ...given, requestId, outputEncoding })).finish();
        expect(withoutPadding(bytes, 'ComputeRequest')).toEqual(Buffer.from(theirs));
        expect(plain(decodeRequest(bytes))).toEqual(plain(readRequest(bytes)));
      }),
      { numRuns: 500 },
    );
  });

  it('write the same responses, but for the padding', () => {
    fc.assert(
      fc.property(responses, bases, ({ requestId, serverMs, ...response }, base) => {
        const bytes = toBytes(encodeResponse(response, requestId, serverMs, { base }));
        const message = v1.ComputeResponse.decode(bytes);
        expect(message).toMatchObject({ requestId, model: response.model, timing: { ...response.timing, serverMs } });
        expect(message.outputs.map(({ name }) => name)).toEqual(Object.keys(response.outputs));
        withoutPadding(bytes, 'ComputeResponse');
        expect(plainResponse(decodeResponse(bytes))).toEqual(plainResponse(readResponse(bytes)));
      }),
      { numRuns: 500 },
    );
  });

  it.each([false, true])('read any form that a request may have (overlong varints: %s)', (overlong) => {
    fc.assert(
      fc.property(requests, fc.nat(), ({ parameters: given, ...rest }, seed) => {
        const original = { ...rest, ...(given && { parameters: given }) };
        const bytes = new NoisyWriter(new Random(seed), { overlong }).request(toRequestMessage(original));
        const expected = plain({
          request: { ...original, ...(original.model === '' && { model: undefined }) } as ComputeRequest,
          ...(original.requestId !== '' && { requestId: original.requestId }),
          outputEncoding: original.outputEncoding,
        });
        expect(plain(decodeRequest(bytes))).toEqual(expected);
        // protobufjs takes no tag or length of more than five bytes, and no long varint at the end of a message.
        if (!overlong) expect(plain(readRequest(bytes))).toEqual(expected);
      }),
      { numRuns: 1000 },
    );
  });

  it.each([false, true])('read any form that a response may have (overlong varints: %s)', (overlong) => {
    fc.assert(
      fc.property(responses, fc.nat(), (original, seed) => {
        const bytes = new NoisyWriter(new Random(seed), { overlong }).response({
          requestId: original.requestId,
          model: original.model,
          outputs: Object.entries(original.outputs).map(([name, tensor]) => toMessage(name, tensor)),
          timing: { ...original.timing, serverMs: original.serverMs },
        });
        const expected = {
          model: original.model || undefined,
          outputs: allBits(original.outputs),
          timing: { ...original.timing, serverMs: original.serverMs },
          nested: original.timing,
        };
        expect(plainResponse(decodeResponse(bytes))).toEqual(expected);
        if (!overlong) expect(plainResponse(readResponse(bytes))).toEqual(expected);
      }),
      { numRuns: 1000 },
    );
  });
});
