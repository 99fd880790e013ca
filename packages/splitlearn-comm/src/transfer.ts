import { CommError } from './errors.js';
import { type Tensor, type Tensors, TYPED_ARRAYS } from './tensor.js';

// Moving a buffer to another thread costs microseconds, copying 16 MB of it costs milliseconds. But a moved buffer is
// gone where it was, so only memory that nobody else holds may move: the tensors of a received request, and what a
// model declares that it gave away.
const movable = new WeakSet<ArrayBufferLike>();

/**
 * Declares that nobody else holds the memory of these tensors, so that an executor may move it to another thread
 * instead of copying it. Call it in a model whose outputs are fresh for every run. The tensors are returned.
 */
export function markMovable<T extends Tensors>(tensors: T): T {
  for (const tensor of Object.values(tensors)) if (tensor.dtype !== 'string') movable.add(tensor.data.buffer);
  return tensors;
}

/** Whether memory has been declared to be held by nobody else. */
export function isMovable(buffer: ArrayBufferLike): boolean {
  return movable.has(buffer);
}

/**
 * Tensors as they are now, on memory that nobody else holds: what is not movable already is copied. Values that are no
 * tensors are left to whoever checks them.
 */
export function snapshot(tensors: Tensors): Tensors {
  if (typeof tensors !== 'object' || tensors === null) return tensors;
  const copies = Object.entries(tensors).map(([name, tensor]): [string, Tensor] => {
    const { dtype, shape, data } = tensor ?? {};
    if (Array.isArray(data)) return [name, { dtype, shape, data: [...data] } as Tensor];
    if (!ArrayBuffer.isView(data) || movable.has(data.buffer)) return [name, tensor];
    const copy = Uint8Array.prototype.slice.call(data);
    movable.add(copy.buffer);
    return [name, { dtype, shape, data: copy } as unknown as Tensor];
  });
  return Object.fromEntries(copies);
}

/**
 * Prepares tensors for `postMessage`: movable buffers go on the transfer list, others are copied first.
 *
 * @throws CommError `FAILED_PRECONDITION` (reason `TENSOR_MOVED`) for a tensor that has been moved before.
 */
export function packTensors(tensors: Tensors): { tensors: Tensors; transfer: ArrayBuffer[] } {
  const transfer = new Set<ArrayBufferLike>();
  const packed = Object.entries(tensors).map(([name, tensor]): [string, Tensor] => {
    const { dtype, shape, data } = tensor;
    if (dtype === 'string') return [name, { dtype, shape, data: [...(data as readonly string[])] }];
    if (data.length === 0) {
      if (!shape.includes(0)) throw moved(name);
      // The buffer that it is an empty view on may be gone, and then could not be sent.
      return [name, { dtype, shape, data: new TYPED_ARRAYS[dtype](0) } as Tensor];
    }
    if (movable.has(data.buffer)) {
      transfer.add(data.buffer);
      return [name, tensor];
    }
    // Not data.slice(), which for a Buffer is a view on the same memory.
    const copy = Uint8Array.prototype.slice.call(data);
    transfer.add(copy.buffer);
    return [name, { dtype, shape, data: copy } as Tensor];
  });
  return { tensors: Object.fromEntries(packed), transfer: [...transfer] as ArrayBuffer[] };
}

function moved(name: string): CommError {
  return new CommError(
    'FAILED_PRECONDITION',
    `tensor '${name}' has already been handed to another thread, which took its memory along; to use a received ` +
      'tensor twice, copy its data first',
    { reason: 'TENSOR_MOVED' },
  );
}
