/**
 * Where a model is in its life.
 *
 * - `LOADING`: its files are read and its process or thread is started; requests for it wait.
 * - `READY`: it answers.
 * - `DRAINING`: it is being unloaded; requests that hold a lease finish, new ones are refused.
 * - `UNLOADED`: it is gone, and so is its memory.
 * - `FAILED`: its process ended by itself, or could not be started again. The next request for it tries once more.
 */
export type ModelState = 'LOADING' | 'READY' | 'DRAINING' | 'UNLOADED' | 'FAILED';
