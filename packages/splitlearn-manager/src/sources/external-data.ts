import { readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** A graph whose weights lie beside it is smaller than this; in a larger file the weights are in it, and not looked at. */
const MAX_GRAPH_BYTES = 64 * 2 ** 20;

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
  if (size > MAX_GRAPH_BYTES) return 0;
  const graph = await readFile(file);
  const names = new Set<string>();
  for (let at = graph.indexOf(LOCATION); at !== -1; at = graph.indexOf(LOCATION, at + 1)) {
    const name = lengthDelimited(graph, at + LOCATION.length);
    if (name !== undefined && !name.includes('\0')) names.add(name);
  }
  const found = await Promise.all([...names].map((name) => stat(join(dirname(file), name)).catch(() => undefined)));
  return found.reduce((sum, stats) => sum + (stats?.isFile() ? stats.size : 0), 0);
}

/** Paths are short: a varint of up to two bytes, then the text. */
function lengthDelimited(bytes: Buffer, at: number): string | undefined {
  const [low = 0, high = 0] = bytes.subarray(at, at + 2);
  if (low < 0x80) return bytes.toString('utf8', at + 1, at + 1 + low);
  if (high >= 0x80) return undefined;
  return bytes.toString('utf8', at + 2, at + 2 + (low & 0x7f) + high * 0x80);
}
