import { splitlearn } from '#proto';
import { type FieldTypes, REQUEST_TYPES, RESPONSE_TYPES, TENSOR_TYPES, TIMING_TYPES, varint } from './plain-wire.js';

// Protobuf messages in all the forms that they may have, by the letter of the specification, and damaged ones. Written
// without the code under test.

import v1 = splitlearn.comm.v1;

/** Numbers that look random and are the same every time (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** At least 0, below 1. */
  fraction(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let bits = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }

  /** An integer from 0 to one less than the limit. */
  below(limit: number): number {
    return Math.floor(this.fraction() * limit);
  }

  chance(probability: number): boolean {
    return this.fraction() < probability;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  bytes(length: number): Buffer {
    return Buffer.from(Array.from({ length }, () => this.below(256)));
  }
}

export interface NoiseOptions {
  /** Whether varints may be longer than they need be. protobufjs refuses some of these. */
  readonly overlong: boolean;
}

/** Writes messages in a form that is chosen at random, and always means the same. */
export class NoisyWriter {
  readonly #random: Random;
  readonly #overlong: boolean;

  constructor(random: Random, { overlong }: NoiseOptions) {
    this.#random = random;
    this.#overlong = overlong;
  }

  request(message: v1.IComputeRequest): Buffer {
    return this.#message(REQUEST_TYPES, [
      this.#last(1, message.requestId, 'another id'),
      this.#last(2, message.model, 'another model'),
      (message.inputs ?? []).map((input) => this.#bytes(3, this.#tensor(input))),
      message.parameters ? this.#parameters(message.parameters) : [],
      (message.outputs ?? []).map((output) => this.#bytes(5, Buffer.from(output))),
      this.#lastNumber(6, message.outputEncoding),
    ]);
  }

  response(message: v1.IComputeResponse): Buffer {
    return this.#message(RESPONSE_TYPES, [
      this.#last(1, message.requestId, 'another id'),
      this.#last(2, message.model, 'another model'),
      (message.outputs ?? []).map((output) => this.#bytes(3, this.#tensor(output))),
      message.timing ? this.#timing(message.timing) : [],
    ]);
  }

  #tensor(tensor: v1.ITensor): Buffer {
    const padding = this.#random.chance(0.3) ? [this.#bytes(6, this.#random.bytes(this.#random.below(12)))] : [];
    return this.#message(TENSOR_TYPES, [
      this.#last(1, tensor.name, 'another name'),
      this.#lastNumber(2, tensor.dtype),
      this.#shape((tensor.shape ?? []).map(Number)),
      this.#lastNumber(4, tensor.encoding),
      this.#last(5, tensor.data ?? '', Buffer.from('other data')),
      padding,
    ]);
  }

  /** Dimensions packed, one by one, or both. */
  #shape(shape: readonly number[]): Buffer[] {
    const fields: Buffer[] = [];
    let left = [...shape];
    while (left.length > 0 || this.#random.chance(0.1)) {
      if (left.length > 0 && this.#random.chance(0.3)) {
        fields.push(Buffer.concat([this.#tag(3, 0), this.#varint(left.shift() ?? 0)]));
      } else {
        const packed = left.slice(0, this.#random.below(left.length + 1));
        left = left.slice(packed.length);
        fields.push(this.#bytes(3, Buffer.concat(packed.map((size) => this.#varint(size)))));
      }
    }
    return fields;
  }

  /** An embedded message may come in any number of parts, which are merged. */
  #parameters(parameters: NonNullable<v1.IComputeRequest['parameters']>): Buffer[] {
    const entries = Object.entries(parameters.fields ?? {}).map(([key, value]) =>
      v1.ComputeRequest.encode({ parameters: { fields: Object.fromEntries([[key, value]]) } }).finish(),
    );
    // Each is a field 4 with one entry of the map already.
    return entries.length === 0 ? [this.#bytes(4, Buffer.alloc(0))] : entries.map((entry) => Buffer.from(entry));
  }

  #timing({ queueMs, computeMs, serverMs, batchSize }: v1.ITiming): Buffer[] {
    const parts: Buffer[] = [];
    let part: Buffer[] = [];
    [queueMs, computeMs, serverMs].forEach((value, index) => {
      if (value === undefined || value === null) return;
      const bytes = Buffer.alloc(8);
      bytes.writeDoubleLE(value);
      if (this.#random.chance(0.1)) part.push(this.#unknown(TIMING_TYPES));
      part.push(Buffer.concat([this.#tag(index + 1, 1), bytes]));
      if (!this.#random.chance(0.3)) return;
      parts.push(this.#bytes(4, Buffer.concat(part)));
      part = [];
    });
    part.push(...this.#lastNumber(4, batchSize));
    return [...parts, this.#bytes(4, Buffer.concat(part))];
  }

  /** Fields in any order, except among those of one number, and others between them. */
  #message(known: FieldTypes, groups: readonly (readonly Buffer[])[]): Buffer {
    const queues = groups.filter((group) => group.length > 0).map((group) => [...group]);
    const fields: Buffer[] = [];
    while (queues.length > 0) {
      if (this.#random.chance(0.05)) fields.push(this.#unknown(known));
      const index = this.#random.chance(0.7) ? 0 : this.#random.below(queues.length);
      const queue = queues[index] as Buffer[];
      fields.push(queue.shift() as Buffer);
      if (queue.length === 0) queues.splice(index, 1);
    }
    if (this.#random.chance(0.1)) fields.push(this.#unknown(known));
    return Buffer.concat(fields);
  }

  /** A scalar counts as it comes last. One that is empty may be left out. */
  #last(number: number, value: string | Uint8Array | null | undefined, other: string | Uint8Array): Buffer[] {
    const bytes = Buffer.from((value ?? '') as Uint8Array);
    const before = this.#random.chance(0.1) ? [this.#bytes(number, Buffer.from(other as Uint8Array))] : [];
    const omitted = bytes.byteLength === 0 && before.length === 0 && this.#random.chance(0.9);
    return omitted ? [] : [...before, this.#bytes(number, bytes)];
  }

  #lastNumber(number: number, value: number | null | undefined): Buffer[] {
    const write = (written: number) => Buffer.concat([this.#tag(number, 0), this.#varint(written)]);
    const before = this.#random.chance(0.1) ? [write(this.#random.below(300) - 100)] : [];
    const omitted = !value && before.length === 0 && this.#random.chance(0.9);
    return omitted ? [] : [...before, write(value ?? 0)];
  }

  /** A field that is not known, by its number or by its type. */
  #unknown(known: FieldTypes): Buffer {
    const number = this.#random.pick([1, 2, 3, 4, 5, 6, 7, 15, 16, 1007, 2 ** 29 - 1]);
    const types = [0, 1, 2, 3, 5].filter((type) => !known.get(number)?.includes(type));
    return this.#field(number, this.#random.pick(types), 0);
  }

  #field(number: number, type: number, depth: number): Buffer {
    const tag = this.#tag(number, type);
    if (type === 0) return Buffer.concat([tag, this.#varint(this.#random.pick([0, 1, -1, 300, 2 ** 53, 2 ** 31]))]);
    if (type === 1) return Buffer.concat([tag, this.#random.bytes(8)]);
    if (type === 5) return Buffer.concat([tag, this.#random.bytes(4)]);
    if (type === 2) return this.#bytes(number, this.#random.bytes(this.#random.below(20)));
    const inner = Array.from({ length: depth > 5 ? 0 : this.#random.below(3) }, () =>
      this.#field(1 + this.#random.below(20), this.#random.pick([0, 1, 2, 3, 5]), depth + 1),
    );
    return Buffer.concat([tag, ...inner, this.#tag(number, 4)]);
  }

  #bytes(number: number, bytes: Uint8Array): Buffer {
    return Buffer.concat([this.#tag(number, 2), this.#varint(bytes.byteLength), bytes]);
  }

  #tag(number: number, type: number): Buffer {
    return this.#varint(number * 8 + type);
  }

  #varint(value: number): Buffer {
    return varint(value, this.#overlong && this.#random.chance(0.1) ? this.#random.below(10) : 0);
  }
}

/** A message after an accident. */
export function damage(message: Buffer, random: Random): Buffer {
  let bytes = Buffer.from(message);
  for (let times = random.pick([1, 1, 1, 2, 4]); times > 0 && bytes.byteLength > 0; times--) {
    const at = random.below(bytes.byteLength);
    const length = random.below(Math.min(20, bytes.byteLength - at)) + 1;
    const kind = random.below(7);
    if (kind === 0) bytes[at] = random.below(256);
    else if (kind === 1) bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
    else if (kind === 2) bytes[at] = random.pick([0x00, 0x7f, 0x80, 0xff]);
    else if (kind === 3) bytes = bytes.subarray(0, at);
    else if (kind === 4) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]);
    else if (kind === 5) bytes = Buffer.concat([bytes.subarray(0, at), random.bytes(length), bytes.subarray(at)]);
    else bytes = Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)]);
  }
  return bytes;
}
