import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ManagerError } from '../errors.js';
import { chooseFiles, type FileWish } from './file-choice.js';

const choose = (paths: readonly string[], wish: Partial<FileWish> = {}) => chooseFiles(paths, { source: 's', ...wish });

describe('the ONNX file', () => {
  const gpt2 = [
    'onnx/decoder_model.onnx',
    'onnx/decoder_model_merged.onnx',
    'onnx/decoder_model_merged_quantized.onnx',
    'onnx/decoder_with_past_model.onnx',
  ];
  it.each([
    { paths: ['onnx/model.onnx', 'model.onnx'], file: 'onnx/model.onnx' },
    { paths: ['onnx/model_fp16.onnx', 'model.onnx'], file: 'model.onnx' },
    { paths: ['onnx/model_fp16.onnx', 'model.onnx'], dtype: 'fp16', file: 'onnx/model_fp16.onnx' },
    { paths: ['model_quantized.onnx', 'model.onnx'], dtype: 'q8', file: 'model_quantized.onnx' },
    { paths: ['onnx/model_int8.onnx', 'onnx/model_uint8.onnx'], dtype: 'int8', file: 'onnx/model_int8.onnx' },
    { paths: ['onnx/model_int8.onnx', 'onnx/model_uint8.onnx'], dtype: 'uint8', file: 'onnx/model_uint8.onnx' },
    { paths: ['onnx/model_q4.onnx', 'onnx/model_q4f16.onnx'], dtype: 'q4', file: 'onnx/model_q4.onnx' },
    { paths: ['onnx/model_q4.onnx', 'onnx/model_q4f16.onnx'], dtype: 'q4f16', file: 'onnx/model_q4f16.onnx' },
    { paths: ['onnx/model_bnb4.onnx', 'onnx/model.onnx'], dtype: 'bnb4', file: 'onnx/model_bnb4.onnx' },
    { paths: gpt2, file: 'onnx/decoder_model_merged.onnx' },
    { paths: gpt2, dtype: 'q8', file: 'onnx/decoder_model_merged_quantized.onnx' },
    { paths: [...gpt2, 'model.onnx'], file: 'model.onnx' },
    { paths: ['onnx/model_quantized.onnx'], file: 'onnx/model_quantized.onnx' },
    { paths: ['weights.onnx'], dtype: 'q8', file: 'weights.onnx' },
  ] as const)('of $paths for $dtype is $file', ({ paths, file, ...wish }) => {
    expect(choose(paths, wish).file).toBe(file);
  });

  it.each([
    { paths: ['onnx/model.onnx'], wish: { dtype: 'q4f16' }, says: 'onnx/model_q4f16.onnx' },
    { paths: ['onnx/model_fp16.onnx'], wish: { dtype: 'fp32' }, says: "'fp32'" },
    { paths: ['a.onnx', 'b.onnx'], wish: {}, says: 'a.onnx, b.onnx' },
    { paths: ['deep/er/model.onnx', 'config.json'], wish: {}, says: 'no ONNX file' },
    { paths: ['onnx/model.onnx'], wish: { file: 'model.onnx' }, says: 'onnx/model.onnx' },
  ] as const)('of $paths for $wish is none', ({ paths, wish, says }) => {
    expect(() => choose(paths, wish)).toThrow(says);
  });
});

describe('the other files', () => {
  it('are those of the engine', () => {
    const paths = ['onnx/model.onnx', 'tokenizer.json', 'config.json', 'vocab.json', 'README.md', 'onnx/config.json'];
    expect(choose(paths)).toEqual({
      engine: 'transformers',
      file: 'onnx/model.onnx',
      files: ['config.json', 'onnx/model.onnx', 'tokenizer.json'],
    });
    expect(choose(paths, { engine: 'onnx' }).files).toEqual(['onnx/model.onnx']);
    expect(choose(['model.onnx', 'config.json'])).toMatchObject({ engine: 'onnx', files: ['model.onnx'] });
  });

  it('are the first half of a model that has two, of the same type', () => {
    const names = ['decoder_model_merged', 'encoder_model', 'decoder_model'];
    const paths = names.flatMap((name) => [`onnx/${name}.onnx`, `onnx/${name}_quantized.onnx`]);
    const { files } = choose([...paths, 'onnx/encoder_model_quantized.onnx_data', 'tokenizer.json'], { dtype: 'q8' });
    expect(files).toEqual([
      'onnx/decoder_model_merged_quantized.onnx',
      'onnx/encoder_model_quantized.onnx',
      'onnx/encoder_model_quantized.onnx_data',
      'tokenizer.json',
    ]);
  });

  it('are external data by the names that exporters use', () => {
    const data = ['model.onnx.data', 'model.onnx_data', 'model.onnx_data_1'];
    const others = ['model.onnx_data.bak', 'model.onnx_database', 'model_q4.onnx_data', 'onnx/model.onnx_data'];
    expect(choose(['model.onnx', ...data, ...others]).files).toEqual(['model.onnx', ...data]);
  });

  it('are none of a program, which is its own engine', () => {
    expect(choose(['a.mjs', 'model.onnx'], { file: 'a.mjs' })).toMatchObject({ engine: 'module', files: ['a.mjs'] });
  });
});

it('whatever is there, chooses from it, the same from any order, and nothing that does not matter', () => {
  const part = fc.constantFrom('', 'onnx/', 'other/');
  const stem = fc.constantFrom('model', 'decoder_model_merged', 'encoder_model', 'weights');
  const suffix = fc.constantFrom('', '_fp16', '_quantized', '_int8', '_uint8', '_q4', '_q4f16', '_bnb4');
  const ending = fc.constantFrom('.onnx', '.onnx_data', '.onnx_data_1', '.onnx.data', '.bin', '.json');
  const weights = fc.tuple(part, stem, suffix, ending).map((parts) => parts.join(''));
  const path = fc.oneof(weights, fc.constantFrom('config.json', 'tokenizer.json', 'merges.txt', 'a/config.json'));
  const dtype = fc.constantFrom('fp32', 'fp16', 'q8', 'int8', 'uint8', 'q4', 'q4f16', 'bnb4', undefined);
  const attempt = (paths: readonly string[], wish: Partial<FileWish>) => {
    try {
      return choose(paths, wish);
    } catch (error) {
      expect(error).toBeInstanceOf(ManagerError);
      expect((error as ManagerError).code).toBe('SOURCE_INVALID');
      return undefined;
    }
  };
  fc.assert(
    fc.property(fc.uniqueArray(path, { maxLength: 30 }), dtype, (paths, type) => {
      const wish = type === undefined ? {} : { dtype: type };
      const chosen = attempt(paths, wish);
      expect(attempt([...paths].reverse(), wish)).toEqual(chosen);
      if (!chosen) return;
      expect(paths).toEqual(expect.arrayContaining([...chosen.files]));
      expect(chosen.files).toContain(chosen.file);
      expect(attempt(chosen.files, wish)).toEqual(chosen);
      for (const file of chosen.files) expect(file).not.toMatch(/^other\/|\.bin$|merges/);
    }),
    { numRuns: 1000 },
  );
});
