/**
 * Does something for each item, some at a time. The first failure aborts the signal of the others, which are waited
 * for: nothing goes on in the background once this has settled.
 */
export async function inParallel<T>(
  items: Iterable<T>,
  limit: number,
  signal: AbortSignal | undefined,
  run: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController();
  const either = signal ? AbortSignal.any([signal, failed.signal]) : failed.signal;
  const failures: unknown[] = [];
  const rest = items[Symbol.iterator]();
  const work = async () => {
    for (let next = rest.next(); !next.done; next = rest.next()) {
      if (either.aborted) return;
      await run(next.value, either);
    }
  };
  const guarded = () =>
    work().catch((error: unknown) => {
      failures.push(error);
      failed.abort(error);
    });
  await Promise.all(Array.from({ length: limit }, guarded));
  signal?.throwIfAborted();
  if (failures.length > 0) throw failures[0];
}
