import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { allBits, parameters, tensors, text } from '../../test/support/arbitraries.js';
import type { ComputeRequest } from '../compute-function.js';
import { CommError } from '../errors.js';
import { type Tensor, tensor } from '../tensor.js';
import { markMovable, packTensors } from '../transfer.js';
import { decodeRequest, decodeResponse, type EncodeOptions, encodeRequest, encodeResponse, toBytes } from './wire.js';

import v1 = splitlearn.comm.v1;

function refusal(act: () => unknown): CommError {
  try {
    act();
  } catch (error) {
    return error as CommError;
  }
  throw new Error('an error was expected');
}

/** The bytes of a request with one tensor, as another sender writes it. */
function requestOf(input: v1.ITensor): Uint8Array {
  return v1.ComputeRequest.encode({ inputs: [input] }).finish();
}

function requestBytes(request: ComputeRequest, requestId = '', options?: EncodeOptions): Uint8Array {
  return toBytes(encodeRequest(request, requestId, options));
}

describe('the data of tensors', () => {
  /** Where each tensor's data begins, counted from the beginning of the message. */
  function dataOffsets(bytes: Uint8Array): number[] {
    const { inputs } = v1.ComputeRequest.decode(bytes);
    return inputs
      .filter(({ data }) => data?.length)
      .map(({ data }) => (data as Uint8Array).byteOffset - bytes.byteOffset);
  }

  it.each([0, 5] as const)('begins at a multiple of 8 in a buffer where the message begins at %i', (base) => {
    fc.assert(
      fc.property(tensors, text, parameters, (inputs, id, given) => {
        const bytes = requestBytes({ inputs, parameters: given }, id, { base });
        for (const offset of dataOffsets(bytes)) expect((base + offset) % 8).toBe(0);
      }),
    );
  });

  it('does so wherever the padding makes the length in front of it longer', () => {
    let wider = 0;
    for (const [from, to] of [
      [90, 140],
      [16_340, 16_400],
      [2_097_100, 2_097_160],
    ] as const) {
      for (let dataBytes = from; dataBytes < to; dataBytes++) {
        for (const id of ['', 'a', 'abc', 'abcdef']) {
          const message = encodeRequest({ inputs: { x: tensor(new Uint8Array(dataBytes).fill(7)) } }, id);
          const target = new Uint8Array(message.byteLength + 2).fill(0xee);
          message.writeTo(target, 1);
          expect([target[0], target.at(-1)]).toEqual([0xee, 0xee]);
          const bytes = target.slice(1, -1);
          expect(dataOffsets(bytes).map((offset) => offset % 8)).toEqual([0]);
          // A varint of more bytes than it needs ends with zero.
          const lengthAt = id === '' ? 1 : id.length + 3;
          let lengthEnd = lengthAt;
          while ((bytes[lengthEnd] as number) >= 0x80) lengthEnd++;
          if (bytes[lengthEnd] === 0) wider++;
          expect((decodeRequest(bytes).request.inputs.x as Tensor<'uint8'>).data).toHaveLength(dataBytes);
        }
      }
    }
    expect(wider).toBeGreaterThan(0);
  });

  it('is used where it lies, when the message has the buffer for itself, also behind a prefix of gRPC', () => {
    const inputs = { x: tensor(new Float64Array([1, 2])), y: tensor(new BigInt64Array([3n])), z: tensor([1]) };
    for (const base of [0, 5] as const) {
      const message = encodeRequest({ inputs }, 'id', { base });
      const buffer = new Uint8Array(base + message.byteLength);
      message.writeTo(buffer, base);
      const decoded = decodeRequest(buffer.subarray(base)).request.inputs;
      expect(allBits(decoded)).toEqual(allBits(inputs));
      for (const { data } of Object.values(decoded)) expect((data as Uint8Array).buffer).toBe(buffer.buffer);
    }
  });

  it('is copied once from a message that another sender did not align, or that is large and shares its buffer', () => {
    const values = Float64Array.from({ length: 600 }, (_, index) => index);
    const data = new Uint8Array(values.buffer);
    for (const name of ['x', 'xy', 'xyz', 'wxyz']) {
      const bytes = requestOf({ name, dtype: v1.DType.DTYPE_FLOAT64, shape: [600], data });
      const own = Uint8Array.from(bytes);
      const shared = new Uint8Array(own.byteLength + 6);
      shared.set(own, 6);
      for (const received of [own, shared.subarray(6)]) {
        const { inputs } = decodeRequest(received).request;
        const { buffer } = (inputs[name] as Tensor<'float64'>).data;
        expect(inputs[name]?.data).toEqual(values);
        // Movable, so not copied again; and without what else was in a buffer that is shared.
        expect(packTensors(inputs).transfer[0]).toBe(buffer);
        if (received !== own) expect(buffer.byteLength).toBe(data.byteLength);
      }
    }
  });

  it('may be encoded by one side and decoded by the other, tensor by tensor', () => {
    const inputs = { x: tensor([1, 2]), y: tensor(['text']) };
    const encode = (value: Tensor, name: string) =>
      name === 'x'
        ? { encoding: 200, data: Uint8Array.of(9, value.shape[0] as number) }
        : { encoding: 0, data: Uint8Array.of(4, 0, 0, 0, 116, 101, 120, 116) };
    const bytes = requestBytes({ inputs }, '', { encode, outputEncoding: 4 });
    const calls: unknown[] = [];
    const decode = (...call: unknown[]) => {
      calls.push(call);
      return new Uint8Array(new Float32Array([1, 2]).buffer);
    };
    const { request, outputEncoding } = decodeRequest(bytes, { decode });
    expect(outputEncoding).toBe(4);
    expect(allBits(request.inputs)).toEqual(allBits(inputs));
    expect(calls).toEqual([[200, { dtype: 'float32', shape: [2], data: Uint8Array.of(9, 2) }, 'x']]);
    expect(refusal(() => decodeRequest(bytes))).toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: "tensor 'x' has the unknown encoding 200",
    });
    const short = () => new Uint8Array(7);
    expect(refusal(() => decodeRequest(bytes, { decode: short })).message).toContain('needs 8 bytes, but has 7');
  });

  it('may be decoded in another thread, and is there when that is done', async () => {
    const [x, y] = [tensor([1, 2]), tensor(['text'])];
    const encode = (_: Tensor, name: string) =>
      name === 'x'
        ? { encoding: 200, data: new Uint8Array(1) }
        : { encoding: 0, data: Uint8Array.of(4, 0, 0, 0, 116, 101, 120, 116) };
    const decode = async () => new Uint8Array(new Float32Array([1, 2]).buffer);
    const ofRequest = decodeRequest(requestBytes({ inputs: { x, y } }, '', { encode }), { decode });
    const response = toBytes(encodeResponse({ outputs: { x, y } }, '', 0, { encode }));
    const ofResponse = decodeResponse(response, { decode });
    await Promise.all([ofRequest.ready, ofResponse.ready]);
    for (const decoded of [ofRequest.request.inputs, ofResponse.response.outputs]) {
      expect(allBits(decoded)).toEqual(allBits({ x, y }));
      expect(packTensors(decoded).transfer[0]).toBe((decoded.x as Tensor<'float32'>).data.buffer);
    }
  });

  it('whose decoding fails after its message has been refused does no harm', async () => {
    const unhandled: unknown[] = [];
    const note = (error: unknown) => unhandled.push(error);
    process.on('unhandledRejection', note);
    const encode = () => ({ encoding: 200, data: new Uint8Array(1) });
    const decode = async () => {
      await setImmediate();
      throw new Error('too late');
    };
    for (const inputs of [{ x: tensor([1]) }, { x: tensor([1]), y: tensor([1]), z: tensor([1]) }]) {
      const request = Buffer.concat([requestBytes({ inputs }, '', { encode }), Buffer.of(0xff)]);
      expect(refusal(() => decodeRequest(request, { decode })).code).toBe('INVALID_ARGUMENT');
      const response = toBytes(encodeResponse({ outputs: inputs }, '', 0, { encode }));
      const cut = Buffer.concat([response, Buffer.of(0xff)]);
      expect(refusal(() => decodeResponse(cut, { decode })).code).toBe('INTERNAL');
    }
    for (let turns = 0; turns < 3; turns++) await setImmediate();
    process.off('unhandledRejection', note);
    expect(unhandled).toEqual([]);
  });

  it('that is too much, or encoded as this side cannot read, is no malformed message', () => {
    const error = new CommError('RESOURCE_EXHAUSTED', 'too large', { reason: 'MESSAGE_TOO_LARGE' });
    const fail = () => {
      throw error;
    };
    const response = { outputs: { y: tensor([1]) } };
    expect(refusal(() => encodeResponse(response, '', 0, { encode: fail }))).toBe(error);
    const encode = () => ({ encoding: 4, data: new Uint8Array(1) });
    const bytes = toBytes(encodeResponse(response, '', 0, { encode }));
    expect(refusal(() => decodeResponse(bytes, { decode: fail }))).toBe(error);
  });

  it('of every tensor is checked before any of it is encoded', () => {
    const encode = () => {
      throw new Error('not yet');
    };
    const inputs = { x: tensor([1]), y: { dtype: 'float32', shape: [3], data: new Float32Array(2) } as const };
    expect(refusal(() => encodeRequest({ inputs }, '', { encode })).message).toContain(
      "tensor 'y' of shape [3] needs 3",
    );
  });
});

describe('an encoded message', () => {
  const large = () => new Float32Array(8192).fill(1.5);

  it('is the same in one piece and in parts, and fills all that it claims', () => {
    fc.assert(
      fc.property(tensors, text, parameters, fc.boolean(), (inputs, id, given, movable) => {
        const all = { ...inputs, large: tensor(large()), small: tensor([1, 2, 3]), later: tensor(large()) };
        const request = { inputs: movable ? markMovable(all) : all, parameters: given, outputs: ['', id] };
        const message = encodeRequest(request, id);
        const [zeros, ones] = [new Uint8Array(message.byteLength), new Uint8Array(message.byteLength).fill(0xff)];
        message.writeTo(zeros, 0);
        message.writeTo(ones, 0);
        const parts = message.toParts();
        expect(Buffer.compare(zeros, ones)).toBe(0);
        expect(Buffer.compare(Buffer.concat(parts), zeros)).toBe(0);
        expect(parts).toHaveLength(movable ? 5 : 1);
      }),
      { numRuns: 50 },
    );
  });

  it('references large memory that is movable, and what was made by encoding, and nothing else', () => {
    const [movable, kept, small] = [tensor(large()), tensor(large()), tensor(Float32Array.of(1))];
    markMovable({ movable, small });
    const made = new Uint8Array(20_000).fill(3);
    const encode = (value: Tensor, name: string) => {
      if (name === 'made') return { encoding: 4, data: made };
      const { buffer, byteOffset, byteLength } = (value as Tensor<'float32'>).data;
      return { encoding: 0, data: new Uint8Array(buffer, byteOffset, byteLength) };
    };
    const message = encodeRequest({ inputs: { small, movable, kept, made: tensor(large()) } }, '', { encode });
    const parts = message.toParts();
    const before = Buffer.concat(parts);
    // Nothing comes behind the last tensor.
    expect(parts.map(({ byteLength }) => byteLength)).not.toContain(0);
    expect(parts.filter(({ buffer }) => buffer === movable.data.buffer || buffer === made.buffer)).toHaveLength(2);
    kept.data.fill(0);
    small.data.fill(0);
    expect(Buffer.compare(Buffer.concat(parts), before)).toBe(0);
  });

  it('keeps its sizes when shape and outputs change before it is written', () => {
    const [shape, outputs] = [[2, 1], ['y']];
    const message = encodeRequest({ inputs: { x: { dtype: 'uint8', shape, data: new Uint8Array(2) } }, outputs }, '');
    const before = toBytes(message);
    shape[0] = 2 ** 40;
    outputs.push('z');
    expect(toBytes(message)).toEqual(before);
  });

  it('whose tensor has been moved to another thread cannot be written any more', () => {
    const inputs = markMovable({ x: tensor(large()) });
    const message = encodeRequest({ inputs }, '');
    structuredClone(inputs.x.data, { transfer: [inputs.x.data.buffer as ArrayBuffer] });
    for (const write of [() => message.writeTo(new Uint8Array(40_000), 0), () => message.toParts()]) {
      expect(refusal(write)).toMatchObject({ code: 'FAILED_PRECONDITION', reason: 'TENSOR_MOVED' });
    }
  });

  it.each<[string, ComputeRequest, string]>([
    ['a model', { model: 'a\ud800', inputs: {} }, "model has a lone surrogate: 'a\ud800'"],
    ['a tensor', { inputs: { '\udc00': tensor([1]) } }, "a tensor name has a lone surrogate: '\udc00'"],
    ['an output', { inputs: {}, outputs: ['\udc00x'] }, "the name of an output has a lone surrogate: '\udc00x'"],
    [
      'a model that is no string',
      { model: 5 as unknown as string, inputs: {} },
      'model must be a string, and is number 5',
    ],
  ])('is refused for the name of %s that UTF-8 cannot say', (_, request, message) => {
    expect(refusal(() => encodeRequest(request, ''))).toMatchObject({ code: 'INVALID_ARGUMENT', message });
  });
});
