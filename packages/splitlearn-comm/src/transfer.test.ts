import { describe, expect, it } from 'vitest';
import { allBits } from '../test/support/arbitraries.js';
import { type Tensor, type Tensors, tensor } from './tensor.js';
import { markMovable, packTensors } from './transfer.js';

/** What arrives in another thread, and what is left here. */
function send(tensors: Tensors): Tensors {
  const packed = packTensors(tensors);
  return structuredClone(packed.tensors, { transfer: packed.transfer });
}

function buffer(value: Tensor | undefined): ArrayBufferLike {
  return (value as Tensor<'uint8'>).data.buffer;
}

describe('packTensors', () => {
  it('copies tensors that somebody may still hold, and moves the copy', () => {
    const tensors = { a: tensor([1, 2, 3]), b: tensor(new BigInt64Array([5n])), c: tensor(['text']) };
    const packed = packTensors(tensors);
    expect(packed.transfer).toEqual([buffer(packed.tensors.a), buffer(packed.tensors.b)]);
    const before = allBits(tensors);
    expect(allBits(send(tensors))).toEqual(before);
    expect(allBits(tensors)).toEqual(before);
  });

  it.each([
    ['of the pool', Buffer.from('pooled')],
    ['of its own', Buffer.alloc(1 << 20, 7)],
  ])('copies a Buffer %s, whose own slice copies nothing', (_, data) => {
    const tensors = { a: tensor(data) };
    const packed = packTensors(tensors);
    expect(packed.transfer).toHaveLength(1);
    expect(packed.transfer[0]).not.toBe(data.buffer);
    expect(packed.transfer[0]?.byteLength).toBe(data.byteLength);
    const sent = send(tensors);
    expect(Buffer.compare((sent.a as Tensor<'uint8'>).data, data)).toBe(0);
    expect(data.byteLength).toBeGreaterThan(0);
  });

  it('copies only the part of the memory that the tensor is', () => {
    const memory = new Float32Array(1_000);
    const [copy] = packTensors({ a: tensor(memory.subarray(10, 12)) }).transfer;
    expect(copy?.byteLength).toBe(8);
  });

  it('copies shared memory, which cannot move', () => {
    const data = new Int32Array(new SharedArrayBuffer(8));
    data.set([3, 4]);
    expect((send({ a: tensor(data) }).a as Tensor<'int32'>).data).toEqual(Int32Array.of(3, 4));
  });

  it('moves movable tensors, and the memory that they share once', () => {
    const memory = new ArrayBuffer(16);
    const tensors = markMovable({
      a: tensor(new Float32Array(memory, 0, 2)),
      b: tensor(new Uint8Array(memory, 8, 8)),
    });
    const packed = packTensors(tensors);
    expect(packed.transfer).toEqual([memory]);
    expect(packed.tensors.a?.data).toBe(tensors.a.data);
    send(tensors);
    expect(tensors.a.data.byteLength).toBe(0);
  });

  it('says which tensor has been moved before', () => {
    const tensors = markMovable({ a: tensor([1, 2, 3]) });
    send(tensors);
    expect(() => packTensors(tensors)).toThrow(
      expect.objectContaining({
        code: 'FAILED_PRECONDITION',
        reason: 'TENSOR_MOVED',
        message: expect.stringMatching(/^tensor 'a' has already been handed to another thread.*copy its data first$/),
      }),
    );
  });

  it('says so too of memory that its owner moved', () => {
    const mine = tensor([1, 2, 3]);
    structuredClone(mine.data, { transfer: [buffer(mine) as ArrayBuffer] });
    expect(() => packTensors({ mine })).toThrow(expect.objectContaining({ reason: 'TENSOR_MOVED' }));
  });

  it('sends an empty tensor any number of times, also when the memory it is a part of is gone', () => {
    const memory = new ArrayBuffer(8);
    const empty = tensor(new Float32Array(memory, 8, 0), [2, 0]);
    const tensors = markMovable({ full: tensor(new Float32Array(memory, 0, 2)), empty });
    send(tensors);
    for (let times = 0; times < 2; times++) {
      expect(allBits(send({ empty }))).toEqual([
        ['empty', { dtype: 'float32', shape: [2, 0], array: 'Float32Array', elements: '' }],
      ]);
    }
  });

  it('keeps names that an object has already', () => {
    const tensors = Object.fromEntries([['__proto__', tensor([1])]]);
    expect(Object.getOwnPropertyNames(send(tensors))).toEqual(['__proto__']);
  });
});

describe('markMovable', () => {
  it('gives back the tensors, and leaves strings alone', () => {
    const tensors = { a: tensor(['x']), b: tensor([1]) };
    expect(markMovable(tensors)).toBe(tensors);
  });
});
