import { open, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** Nearly every graph whose weights lie beside it is smaller than this. */
const MAX_GRAPH_BYTES = 16 * 2 ** 20;

/** A file is read in parts into the same memory, which would otherwise be garbage of its size. */
const PART_BYTES = 256 * 1024;

/** A name can be no longer on any system that this runs on. */
const MAX_NAME_BYTES = 4096;

/**
 * How a tensor's external data begins in an ONNX file: the key `location` of a StringStringEntryProto, and the tag of its
 * value (https://onnx.ai/onnx/repo-docs/ExternalData.html, onnx.proto3 field 13 of TensorProto).
 */
const LOCATION = Buffer.from('\x0a\x08location\x12', 'latin1');

/**
 * Sizes of the files beside an ONNX file in which it has its weights, together, in bytes. Those that are not there, which
 * the engine is to complain of, are none. This is what a model is thought to take before it is loaded, so it is looked for
 * in the bytes and no ONNX parser is needed: a tensor's name that happens to look like it names a file that is not there.
 *
 * @param file absolute path of the ONNX file.
 */
export async function externalDataBytes(file: string): Promise<number> {
  const { size } = await stat(file);
  const names = size > MAX_GRAPH_BYTES ? await namesakes(file) : await externalNames(file);
  const found = await Promise.all([...names].map((name) => stat(join(dirname(file), name)).catch(() => undefined)));
  return found.reduce((sum, stats) => sum + (stats?.isFile() ? stats.size : 0), 0);
}

/** Files whose names begin with that of a file too large to be read for this, as exporters call them: `model.onnx_data`. */
async function namesakes(file: string): Promise<Set<string>> {
  const names = await readdir(dirname(file));
  return new Set(names.filter((name) => name.startsWith(basename(file)) && name !== basename(file)));
}

async function externalNames(file: string): Promise<Set<string>> {
  const names = new Set<string>();
  const bytes = Buffer.alloc(PART_BYTES);
  /** Bytes at the beginning that are of the part before: what began there may end in this one. */
  let kept = 0;
  await using handle = await open(file);
  for (;;) {
    const { bytesRead } = await handle.read(bytes, kept);
    const filled = bytes.subarray(0, kept + bytesRead);
    for (let at = filled.indexOf(LOCATION); at !== -1; at = filled.indexOf(LOCATION, at + 1)) {
      const name = lengthDelimited(filled, at + LOCATION.length);
      if (name !== undefined && !name.includes('\0')) names.add(name);
    }
    if (bytesRead === 0) return names;
    kept = Math.min(filled.length, LOCATION.length + 2 + MAX_NAME_BYTES);
    bytes.copy(bytes, 0, filled.length - kept, filled.length);
  }
}

/** Paths are short: a varint of up to two bytes, then the text. */
function lengthDelimited(bytes: Buffer, at: number): string | undefined {
  const [low = 0, high = 0] = bytes.subarray(at, at + 2);
  if (high >= 0x80 && low >= 0x80) return undefined;
  const [start, length] = low < 0x80 ? [at + 1, low] : [at + 2, (low & 0x7f) + high * 0x80];
  // Its end may be in the next part.
  return start + length <= bytes.length ? bytes.toString('utf8', start, start + length) : undefined;
}
