import { supportedEncodings, type TensorEncoding } from '../codec/compression.js';
import type { BandwidthEstimate } from '../codec/encodings/bandwidth-estimate.js';
import { chooseEncoding, EncodingPolicy } from '../codec/encodings/encoding-policy.js';
import { encodeAhead } from '../codec/message-encodings.js';
import type { EncodeTensor } from '../codec/wire.js';
import { encodingToWire } from '../codec/wire-enums.js';
import type { Tensor, Tensors } from '../tensor.js';

/** How a request's tensors are written, and how those of its answer may be. */
export interface EncodedTensors {
  readonly encode?: EncodeTensor;
  readonly outputEncoding: number;
}

/** Answers are not there to be sampled; most tensors that get smaller at all get this small. */
const USUAL_RATIO = 0.6;
const USUAL_ANSWER_BYTES = 1024 * 1024;

/** Encodes the tensors of requests for a server, as its client was told to, and as the server can read. */
export class TensorEncoder {
  readonly #encoding: TensorEncoding | 'auto';
  readonly #link: BandwidthEstimate;
  readonly #candidates: readonly TensorEncoding[];

  /** @param readable - What the server says it can read beside raw. */
  constructor(encoding: TensorEncoding | 'auto', readable: readonly TensorEncoding[], link: BandwidthEstimate) {
    this.#encoding = encoding;
    this.#link = link;
    const own = supportedEncodings();
    this.#candidates = readable.filter((encoding) => own.includes(encoding));
  }

  async encode(tensors: Tensors): Promise<EncodedTensors> {
    const encode = await encodeAhead(tensors, (tensor) => this.#choose(tensor));
    return { ...(encode && { encode }), outputEncoding: encodingToWire(this.#outputEncoding()) };
  }

  #choose(tensor: Tensor): TensorEncoding {
    if (this.#encoding !== 'auto') return this.#candidates.includes(this.#encoding) ? this.#encoding : 'raw';
    if (tensor.dtype === 'string') return 'raw';
    const { buffer, byteOffset, byteLength } = tensor.data;
    const policy = new EncodingPolicy({ candidates: this.#candidates, link: this.#link });
    return policy.choose(new Uint8Array(buffer, byteOffset, byteLength));
  }

  #outputEncoding(): TensorEncoding {
    if (this.#encoding !== 'auto') return this.#candidates.includes(this.#encoding) ? this.#encoding : 'raw';
    return chooseEncoding(this.#link, USUAL_ANSWER_BYTES, this.#candidates, () => USUAL_RATIO);
  }
}
