/** Each item mapped, as it comes, one after the other. */
export async function* mapAsync<T, U>(
  items: AsyncIterable<T> | Iterable<T>,
  map: (item: T) => U | Promise<U>,
): AsyncGenerator<U, void> {
  for await (const item of items) yield await map(item);
}

/** One item, then the rest. */
export async function* startWith<T>(first: T, rest: AsyncIterable<T>): AsyncGenerator<T, void> {
  yield first;
  yield* rest;
}
