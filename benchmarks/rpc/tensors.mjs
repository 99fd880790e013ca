// Every peer moves a Float32Array at both ends; on the way it is bytes.

/** The bytes of a tensor, not copied. */
export function asBytes(tensor) {
  return Buffer.from(tensor.buffer, tensor.byteOffset, tensor.byteLength);
}

/** Bytes as a tensor: a view where the alignment allows it, else one copy. */
export function asFloat32(bytes) {
  const { buffer, byteOffset, byteLength } = bytes;
  if (byteOffset % 4 === 0) return new Float32Array(buffer, byteOffset, byteLength / 4);
  return new Float32Array(buffer.slice(byteOffset, byteOffset + byteLength));
}
