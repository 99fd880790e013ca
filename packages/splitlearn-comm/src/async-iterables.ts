/** Each item mapped, as it comes. */
export async function* mapAsync<T, U>(
  items: AsyncIterable<T> | Iterable<T>,
  map: (item: T) => U,
): AsyncGenerator<U, void> {
  for await (const item of items) yield map(item);
}

/** One item, then the rest. */
export async function* startWith<T>(first: T, rest: AsyncIterable<T>): AsyncGenerator<T, void> {
  yield first;
  yield* rest;
}
