import type { ComputeRequest, ComputeResponse } from './compute-function.js';
import { CommError } from './errors.js';

/**
 * Keeps the outputs that the request names. `all` of them must be there in a unary answer; a piece of a stream may hold
 * only some.
 *
 * @throws CommError `INVALID_ARGUMENT` for an output that the compute function does not have.
 */
export function selectOutputs(response: ComputeResponse, request: ComputeRequest, required: 'all' | 'present') {
  const wanted = request.outputs ?? [];
  if (wanted.length === 0) return response;
  const missing = wanted.find((name) => !Object.hasOwn(response.outputs, name));
  if (missing !== undefined && required === 'all') {
    const has = Object.keys(response.outputs).map((name) => `'${name}'`);
    throw new CommError('INVALID_ARGUMENT', `there is no output '${missing}'; there are ${has.join(', ') || 'none'}`);
  }
  return {
    ...response,
    outputs: Object.fromEntries(Object.entries(response.outputs).filter(([name]) => wanted.includes(name))),
  };
}
