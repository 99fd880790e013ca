import { google } from '#proto';
import type { ComputeRequest, ComputeTiming } from '../compute-function.js';
import type { MessageTail } from './encoded-message.js';
import { textByteLength } from './outgoing-tensor.js';
import { varintByteLength, writeDouble, writeTextField, writeVarint } from './protobuf.js';
import { toStruct } from './struct.js';
import {
  BATCH_SIZE_TAG,
  COMPUTE_MS_TAG,
  OUTPUT_ENCODING_TAG,
  OUTPUT_TAG,
  PARAMETERS_TAG,
  QUEUE_MS_TAG,
  SERVER_MS_TAG,
  TIMING_TAG,
} from './wire-tags.js';

/** The fields of a request behind its tensors. */
export class RequestTail implements MessageTail {
  readonly byteLength: number;
  readonly #parameters: Uint8Array | undefined;
  readonly #outputs: readonly string[];
  readonly #outputEncoding: number;

  constructor({ parameters, outputs }: ComputeRequest, outputEncoding: number) {
    let byteLength = outputEncoding === 0 ? 0 : 1 + varintByteLength(outputEncoding);
    this.#outputEncoding = outputEncoding;
    this.#parameters = parameters ? google.protobuf.Struct.encode(toStruct(parameters)).finish() : undefined;
    if (this.#parameters) {
      byteLength += 1 + varintByteLength(this.#parameters.byteLength) + this.#parameters.byteLength;
    }
    this.#outputs = outputs ? [...outputs] : [];
    for (const output of this.#outputs) {
      const bytes = textByteLength(output, 'the name of an output');
      byteLength += 1 + varintByteLength(bytes) + bytes;
    }
    this.byteLength = byteLength;
  }

  write(target: Uint8Array, position: number): void {
    let at = position;
    if (this.#parameters) {
      target[at++] = PARAMETERS_TAG;
      at = writeVarint(target, at, this.#parameters.byteLength);
      target.set(this.#parameters, at);
      at += this.#parameters.byteLength;
    }
    for (const output of this.#outputs) at = writeRepeatedText(target, at, OUTPUT_TAG, output);
    if (this.#outputEncoding !== 0) {
      target[at++] = OUTPUT_ENCODING_TAG;
      writeVarint(target, at, this.#outputEncoding);
    }
  }
}

function writeRepeatedText(target: Uint8Array, position: number, tag: number, text: string): number {
  if (text !== '') return writeTextField(target, position, tag, text, Buffer.byteLength(text));
  // One of several, which counts although it is empty.
  target[position] = tag;
  target[position + 1] = 0;
  return position + 2;
}

/** The bytes of three doubles with a tag each. */
const THREE_DOUBLES = 27;

function isUint32(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < 2 ** 32;
}

/** The field of a response behind its tensors. */
export class TimingTail implements MessageTail {
  readonly byteLength: number;
  readonly #queueMs: number;
  readonly #computeMs: number;
  readonly #serverMs: number;
  readonly #batchSize: number;

  constructor(timing: ComputeTiming | undefined, serverMs: number) {
    const { queueMs = 0, computeMs = serverMs, batchSize = 0 } = timing ?? {};
    this.#queueMs = queueMs;
    this.#computeMs = computeMs;
    this.#serverMs = serverMs;
    this.#batchSize = isUint32(batchSize) ? batchSize : 0;
    this.byteLength = 2 + THREE_DOUBLES + this.#batchSizeBytes;
  }

  write(target: Uint8Array, position: number): void {
    let at = position;
    target[at++] = TIMING_TAG;
    target[at++] = THREE_DOUBLES + this.#batchSizeBytes;
    target[at++] = QUEUE_MS_TAG;
    at = writeDouble(target, at, this.#queueMs);
    target[at++] = COMPUTE_MS_TAG;
    at = writeDouble(target, at, this.#computeMs);
    target[at++] = SERVER_MS_TAG;
    at = writeDouble(target, at, this.#serverMs);
    if (this.#batchSize === 0) return;
    target[at++] = BATCH_SIZE_TAG;
    writeVarint(target, at, this.#batchSize);
  }

  get #batchSizeBytes(): number {
    return this.#batchSize === 0 ? 0 : 1 + varintByteLength(this.#batchSize);
  }
}
