import { describe, expect, it } from 'vitest';
import { splitlearn } from '#proto';
import type { ModelInfo } from '../compute-function.js';
import { decodeServiceInfo, encodeServiceInfo } from './service-info.js';

import v1 = splitlearn.comm.v1;

describe('service info', () => {
  it('comes back as it was, with dynamic and fixed dimensions', () => {
    const model: ModelInfo = {
      name: 'gpt',
      state: 'READY',
      inputs: [{ name: 'ids', dtype: 'int64', shape: ['batch', 0, 768, ''] }],
      outputs: [{ name: 'logits', dtype: 'bfloat16', shape: [] }],
      attributes: { engine: 'onnx', ['__proto__']: 'odd' },
    };
    const info = {
      name: 'n',
      version: '1.2.3',
      maxMessageBytes: 2 ** 40,
      models: [model],
      encodings: ['float16', 'bfloat16', 'int8', 'gzip', 'zstd'] as const,
    };
    expect(decodeServiceInfo(encodeServiceInfo(info))).toEqual(info);
  });

  it('leaves out the encoding that always is, and those that are not known yet', () => {
    const info = { name: '', version: '', maxMessageBytes: 1, models: [] };
    const bytes = encodeServiceInfo({ ...info, encodings: ['raw', 'gzip'] });
    expect(v1.ServiceInfo.decode(bytes).encodings).toEqual([v1.Encoding.ENCODING_GZIP]);
    const future = v1.ServiceInfo.encode({ encodings: [99 as v1.Encoding, v1.Encoding.ENCODING_INT8] }).finish();
    expect(decodeServiceInfo(future).encodings).toEqual(['int8']);
  });

  it('of a server that talks nonsense is the server’s fault', () => {
    expect(() => decodeServiceInfo(Uint8Array.of(0xff))).toThrow(
      expect.objectContaining({
        code: 'INTERNAL',
        message: expect.stringContaining("the server's answer is malformed: the bytes are no ServiceInfo: "),
      }),
    );
  });
});
