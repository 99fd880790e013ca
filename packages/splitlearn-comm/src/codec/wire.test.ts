import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { allBits, canonical, parameters, tensors, text } from '../../test/support/arbitraries.js';
import type { ComputeRequest, ComputeResponse } from '../compute-function.js';
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

/** The bytes of a request with one tensor that says what it likes. */
function requestOf(...inputs: v1.ITensor[]): Uint8Array {
  return v1.ComputeRequest.encode({ inputs }).finish();
}

function requestBytes(request: ComputeRequest, requestId = '', options?: EncodeOptions): Uint8Array {
  return toBytes(encodeRequest(request, requestId, options));
}

const FLOAT32 = v1.DType.DTYPE_FLOAT32;

describe('a request', () => {
  it('comes back as it was, whatever is in it', () => {
    const requests = fc.record({ model: text, inputs: tensors, parameters, outputs: fc.array(text, { maxLength: 3 }) });
    fc.assert(
      fc.property(requests, text, (original, id) => {
        const { request, requestId } = decodeRequest(requestBytes(original, id));
        expect(requestId ?? '').toBe(id);
        expect(request.model ?? '').toBe(original.model);
        expect(allBits(request.inputs)).toEqual(allBits(original.inputs));
        expect(canonical(request.parameters ?? {})).toBe(canonical(original.parameters));
        expect(request.outputs).toEqual(original.outputs);
      }),
      { numRuns: 300 },
    );
  });

  it('has these bytes, for ever', () => {
    const request = { model: 'm', inputs: { x: tensor([1, -2], [2, 1]) }, parameters: { n: 1 }, outputs: ['y'] };
    expect(Buffer.from(requestBytes(request, 'id')).toString('hex')).toBe(
      [
        '0a02' + '6964', // request_id = 'id'
        '1201' + '6d', // model = 'm'
        '1a17', // inputs, 23 bytes
        '0a01' + '78', //   name = 'x'
        '1001', //   dtype = FLOAT32
        '1a02' + '0201', //   shape = [2, 1]
        '3202' + '0000', //   padding, so that data begins at byte 24
        '2a08' + '0000803f' + '000000c0', //   data = 1, -2
        '2210' + '0a0e' + '0a016e' + '1209' + '11000000000000f03f', // parameters = { n: 1 }
        '2a01' + '79', // outputs = ['y']
      ].join(''),
    );
  });

  it('owns its memory and gives it away whole, also when it lay in a buffer with others', () => {
    const bytes = requestBytes({ inputs: { a: tensor([1, 2]), b: tensor(new Uint8Array(5)) } });
    const pool = new Uint8Array(bytes.byteLength + 8);
    pool.set(bytes, 8);
    const { inputs } = decodeRequest(pool.subarray(8)).request;
    const { transfer } = packTensors(inputs);
    expect(transfer.length).toBeGreaterThan(0);
    expect(transfer).not.toContain(pool.buffer);
    for (const { data } of Object.values(inputs)) expect(transfer).toContain((data as Uint8Array).buffer);
  });

  it('has empty tensors of its own, which nothing that happens to another request’s can touch', () => {
    const bytes = requestOf({ name: 'x', dtype: FLOAT32, shape: [0] });
    const first = decodeRequest(bytes).request.inputs.x as Tensor<'float32'>;
    structuredClone(first.data, { transfer: [first.data.buffer as ArrayBuffer] });
    const second = decodeRequest(bytes).request.inputs.x as Tensor<'float32'>;
    expect(second.data).toEqual(new Float32Array());
  });

  it('may have fields that are not known yet', () => {
    const future = [0xfa, 0x3e, 0x03, 1, 2, 3]; // field 1007, three bytes
    const bytes = Uint8Array.from([...requestBytes({ model: 'm', inputs: {} }), ...future]);
    expect(decodeRequest(bytes).request.model).toBe('m');
  });

  describe('is refused, and the tensor named, for', () => {
    it.each<[string, v1.ITensor, string]>([
      [
        'too few bytes',
        { name: 'x', dtype: FLOAT32, shape: [2], data: new Uint8Array(7) },
        "tensor 'x' of dtype float32 and shape [2] needs 8 bytes, but has 7",
      ],
      [
        'no bytes',
        { name: 'x', dtype: FLOAT32, shape: [2] },
        "tensor 'x' of dtype float32 and shape [2] needs 8 bytes, but has 0",
      ],
      ['no dtype', { name: 'x', shape: [0] }, "tensor 'x' has the unknown dtype number 0"],
      ['a dtype that is not known', { name: 'x', dtype: 15 as v1.DType }, "tensor 'x' has the unknown dtype number 15"],
      ['a negative dtype', { name: 'x', dtype: -1 as v1.DType }, "tensor 'x' has the unknown dtype number -1"],
      [
        'an encoding that is not known',
        { name: 'x', dtype: FLOAT32, encoding: 9 as v1.Encoding },
        "tensor 'x' has the unknown encoding 9",
      ],
      [
        'a negative dimension',
        { name: 'x', dtype: FLOAT32, shape: [2, -3], data: new Uint8Array(4) },
        "tensor 'x' has shape [2,-3]: every dimension must be an integer from 0 to 2^53 - 1",
      ],
      [
        'more than 32 dimensions',
        { name: 'x', dtype: FLOAT32, shape: new Array<number>(33).fill(1), data: new Uint8Array(4) },
        "tensor 'x' has 33 dimensions; at most 32 are supported",
      ],
    ])('%s', (_, input, message) => {
      expect(refusal(() => decodeRequest(requestOf(input)))).toMatchObject({ code: 'INVALID_ARGUMENT', message });
    });

    it('a name that comes twice', () => {
      const twice = { name: '__proto__', dtype: FLOAT32, shape: [0] };
      expect(refusal(() => decodeRequest(requestOf(twice, twice)))).toMatchObject({
        code: 'INVALID_ARGUMENT',
        message: "there are two tensors named '__proto__'",
      });
    });
  });

  it('that is cut off anywhere is refused, or is a shorter request', () => {
    const whole = requestBytes({ model: 'm', inputs: { x: tensor([1, 2, 3]) }, parameters: { a: [1, 'b'] } }, 'id');
    for (let length = 0; length < whole.byteLength; length++) {
      try {
        decodeRequest(whole.subarray(0, length));
      } catch (error) {
        expect(error).toMatchObject({ name: 'CommError', code: 'INVALID_ARGUMENT' });
      }
    }
    expect(refusal(() => decodeRequest(whole.subarray(0, -1))).message).toMatch(/^the bytes are no ComputeRequest: /);
  });

  it('of random bytes, or of a real one with a few changed, is refused as the caller’s mistake or decoded', () => {
    const real = requestBytes(
      { model: 'm', inputs: { x: tensor([1, 2, 3]), s: tensor('text') }, parameters: { a: { b: 1 } } },
      'id',
    );
    const damaged = fc
      .array(fc.tuple(fc.nat(real.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 6 })
      .map((changes) => {
        const bytes = Uint8Array.from(real);
        for (const [at, byte] of changes) bytes[at] = byte;
        return bytes;
      });
    fc.assert(
      fc.property(fc.oneof(fc.uint8Array({ maxLength: 64 }), damaged), (bytes) => {
        try {
          decodeRequest(bytes);
        } catch (error) {
          expect(error).toMatchObject({ name: 'CommError', code: 'INVALID_ARGUMENT' });
        }
      }),
      { numRuns: 10_000 },
    );
  });

  it('without tensors by name is refused before it is sent', () => {
    for (const inputs of [undefined, null, 5]) {
      const error = refusal(() => encodeRequest({ inputs: inputs as never }, ''));
      expect(error).toMatchObject({ code: 'INVALID_ARGUMENT', message: expect.stringContaining(`${inputs} is given`) });
    }
  });
});

describe('a response', () => {
  it('comes back as it was, whatever is in it', () => {
    const ms = fc.double({ noNaN: true, min: 0, noDefaultInfinity: true });
    const responses = fc.record({ model: text, outputs: tensors, timing: fc.record({ queueMs: ms, computeMs: ms }) });
    fc.assert(
      fc.property(responses, ms, (original, serverMs) => {
        const { response, timing } = decodeResponse(toBytes(encodeResponse(original, 'id', serverMs)));
        expect(response.model ?? '').toBe(original.model);
        expect(allBits(response.outputs)).toEqual(allBits(original.outputs));
        expect(timing).toEqual({ ...original.timing, serverMs });
      }),
    );
  });

  it('without timing counts the server’s time as computing', () => {
    const { timing } = decodeResponse(toBytes(encodeResponse({ outputs: {} }, '', 12)));
    expect(timing).toEqual({ queueMs: 0, computeMs: 12, serverMs: 12 });
  });

  it('that is malformed is the server’s fault, not the caller’s', () => {
    const bytes = v1.ComputeResponse.encode({ outputs: [{ name: 'y', dtype: FLOAT32, shape: [1] }] }).finish();
    expect(refusal(() => decodeResponse(bytes))).toMatchObject({
      code: 'INTERNAL',
      message: "the server's answer is malformed: tensor 'y' of dtype float32 and shape [1] needs 4 bytes, but has 0",
    });
  });

  it.each<[string, unknown, string]>([
    ['nothing', undefined, 'undefined is given where tensors by name are needed'],
    ['no outputs', {}, 'undefined is given where tensors by name are needed'],
    ['what is no tensor', { outputs: { y: [1, 2] } }, "'y' is no tensor"],
  ])('of %s is the compute function’s fault, not the caller’s', (_, response, message) => {
    expect(refusal(() => encodeResponse(response as ComputeResponse, '', 0))).toMatchObject({
      code: 'INTERNAL',
      message: expect.stringContaining(`the compute function gave no valid response: ${message}`),
    });
  });
});

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

  it('is copied once from a message that another sender did not align, or that shares its buffer', () => {
    const data = new Uint8Array(new Float64Array([1, 2]).buffer);
    for (const name of ['x', 'xy', 'xyz']) {
      const bytes = requestOf({ name, dtype: v1.DType.DTYPE_FLOAT64, shape: [2], data });
      const own = Uint8Array.from(bytes);
      for (const received of [own, Buffer.concat([own, Buffer.alloc(6)]).subarray(0, own.byteLength)]) {
        const { inputs } = decodeRequest(received).request;
        expect((inputs[name] as Tensor<'float64'>).data).toEqual(new Float64Array([1, 2]));
        const { transfer } = packTensors(inputs);
        // Movable, so not copied again; and without what else was in a buffer that is shared.
        expect(transfer).toEqual([(inputs[name] as Tensor<'float64'>).data.buffer]);
        if (received !== own) expect(transfer[0]?.byteLength).toBe(16);
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

describe('outputs', () => {
  it('belong to the caller alone, who may move them on to another thread', () => {
    const response = { outputs: { y: tensor([1, 2]), text: tensor(['a']) } };
    const { outputs } = decodeResponse(toBytes(encodeResponse(response, '', 0))).response;
    expect(packTensors(outputs).transfer).toEqual([(outputs.y as Tensor<'float32'>).data.buffer]);
  });
});
