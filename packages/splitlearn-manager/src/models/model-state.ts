/**
 * Where a model is in its life.
 *
 * - `LOADING`: it waits for room, or its process or thread is started, or started again after a crash; requests wait.
 * - `READY`: it answers.
 * - `DRAINING`: it is being unloaded or evicted. Requests that hold a lease finish; new ones are refused, or where it is
 *   evicted wait until it is loaded again.
 * - `UNLOADED`: it is known, but not loaded, and takes no memory; the next request loads it.
 * - `FAILED`: it could not be loaded, and the next request tries again; or it crashed again and again, and is left alone
 *   for five minutes or until `reloadModel`.
 */
export type ModelState = 'LOADING' | 'READY' | 'DRAINING' | 'UNLOADED' | 'FAILED';
