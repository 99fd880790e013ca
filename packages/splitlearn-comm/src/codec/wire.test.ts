import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import { allBits, canonical, parameters, tensors, text } from '../../test/support/arbitraries.js';
import type { ComputeRequest, ComputeResponse } from '../compute-function.js';
import type { CommError } from '../errors.js';
import { type Tensor, tensor } from '../tensor.js';
import { packTensors } from '../transfer.js';
import { decodeRequest, decodeResponse, encodeRequest, encodeResponse, toBytes } from './wire.js';

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

function requestBytes(request: ComputeRequest, requestId = ''): Uint8Array {
  return toBytes(encodeRequest(request, requestId));
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
    const bytes = requestBytes({ inputs: { a: tensor(new Float32Array(2000)), b: tensor(new Uint8Array(5)) } });
    const shared = new Uint8Array(bytes.byteLength + 8);
    shared.set(bytes, 8);
    const { inputs } = decodeRequest(shared.subarray(8)).request;
    const { transfer } = packTensors(inputs);
    const buffers = Object.values(inputs).map(({ data }) => (data as Uint8Array).buffer);
    expect(new Set(transfer)).toEqual(new Set(buffers));
    expect(buffers).not.toContain(shared.buffer);
  });

  it('that is small stays where it lies with others, and never takes them along to another thread', () => {
    const bytes = requestBytes({ inputs: { a: tensor([1, 2]), b: tensor(new Uint8Array(5)) } });
    const shared = new Uint8Array(bytes.byteLength + 8);
    shared.set(bytes, 8);
    const { inputs } = decodeRequest(shared.subarray(8)).request;
    for (const { data } of Object.values(inputs)) expect((data as Uint8Array).buffer).toBe(shared.buffer);
    expect(packTensors(inputs).transfer).not.toContain(shared.buffer);
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
    const batchSize = fc.integer({ min: 1, max: 2 ** 32 - 1 });
    const timings = fc.record({ queueMs: ms, computeMs: ms, batchSize }, { requiredKeys: ['queueMs', 'computeMs'] });
    const responses = fc.record({ model: text, outputs: tensors, timing: timings });
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

  it.each([0, -1, 1.5, 2 ** 32, Number.NaN])('does not tell a batch size of %s', (batchSize) => {
    const timing = { queueMs: 1, computeMs: 2, batchSize };
    const { response } = decodeResponse(toBytes(encodeResponse({ outputs: {}, timing }, '', 12)));
    expect(response.timing).toStrictEqual({ queueMs: 1, computeMs: 2 });
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

describe('outputs', () => {
  it('belong to the caller alone, who may move them on to another thread', () => {
    const response = { outputs: { y: tensor([1, 2]), text: tensor(['a']) } };
    const { outputs } = decodeResponse(toBytes(encodeResponse(response, '', 0))).response;
    expect(packTensors(outputs).transfer[0]).toBe((outputs.y as Tensor<'float32'>).data.buffer);
  });
});
